import dataclasses, json, os, sys, time
tag, folder = sys.argv[1], sys.argv[2]
os.environ.update({"VLLM_ENABLE_V1_MULTIPROCESSING": os.environ.get("MP", "0"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
 "VLLM_HOST_IP": "127.0.0.1", "VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_DEEP_GEMM_WARMUP": "skip", "VLLM_USE_DEEP_GEMM": "0", "VLLM_PLUGINS": "compilepool",
 "VLLM_CACHE_ROOT": folder + "/vllm", "TORCHINDUCTOR_CACHE_DIR": folder + "/ind", "TRITON_CACHE_DIR": folder + "/tri", "VLLM_COMPILE_POOL_EVENTS": folder + "/events.jsonl"})
T = [("start", time.time())]
import torch, vllm
from vllm import LLM, SamplingParams
T.append(("import", time.time()))
from vllm.compilation.counter import compilation_counter as cc
from torch._dynamo.utils import counters
kw = dict(model=os.environ.get("MODEL", os.path.dirname(os.path.abspath(__file__)) + "/models/opt-1.3b"), load_format="dummy", skip_tokenizer_init=True, max_model_len=512, max_num_batched_tokens=2048,
          max_num_seqs=64, compilation_config=dict(mode=3), gpu_memory_utilization=0.4, attention_backend="TRITON_ATTN")
llm = LLM(**kw); T.append(("engine", time.time()))
out = llm.generate([{"prompt_token_ids": list(range(5, 37))}] * 4, SamplingParams(max_tokens=8, temperature=0, detokenize=False), use_tqdm=False)
T.append(("generate", time.time()))
import psutil
alive = [(p.pid, p.cpu_percent(0.5)) for p in psutil.Process().children(recursive=True) if "compile_worker" in " ".join(p.cmdline())]
cfg = llm.llm_engine.vllm_config
res = {"tag": tag, "times": {T[i][0]: round(T[i][1] - T[i-1][1], 2) for i in range(1, len(T))}, "compilation_time": cfg.compilation_config.compilation_time,
       "counter": {k: v for k, v in dataclasses.asdict(cc).items() if v}, "aot": dict(counters["aot_autograd"]),
       "inductor": {k: v for k, v in counters["inductor"].items() if "async" in k}, "alive": alive, "blocks": cfg.cache_config.num_gpu_blocks,
       "tokens": list(out[0].outputs[0].token_ids)}
t = time.time(); llm.llm_engine.engine_core.shutdown(); res["shutdown_s"] = round(time.time() - t, 2)
res["left"] = len(psutil.Process().children(recursive=True))
ev = folder + "/events.jsonl"
base = T[0][1]
if os.path.exists(ev):
    rows = [json.loads(x) for x in open(ev)]
    off = time.time() - time.monotonic()
    res["events"] = [(round(r["at"] + off - base, 2), r["what"], r["state"], r["took"] and round(r["took"], 3), {k: v for k, v in r["detail"].items() if k not in ("workers",) or isinstance(v, int)}) for r in rows]
    os.rename(ev, ev + "." + tag)
print("RESULT " + json.dumps(res, default=str))
