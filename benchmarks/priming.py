"""Seconds until N kernels of Inductor's are compiled by a ready pool of 8, by how its sidecar was primed."""
import os, sys, time, json, tempfile, shutil, functools
os.environ["PRIME_LOG"] = sys.argv[1] + "/prime.log"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ["PYTHONPATH"] = os.path.dirname(os.path.abspath(__file__)) + ":" + os.environ.get("PYTHONPATH", "")
import torch
import torch._inductor.async_compile as ac, torch._inductor.config as ic
from torch._inductor.compile_worker.subproc_pool import SubprocPool
ic.compile_threads = 1
ic.fx_graph_cache = False
got = []
o = ac.AsyncCompile.triton
def triton(self, name, source, device_str="cuda"):
    got.append((name, source)); return o(self, name, source, device_str)
ac.AsyncCompile.triton = triton
root = tempfile.mkdtemp()
os.environ["TRITON_CACHE_DIR"] = root + "/t0"; os.environ["TORCHINDUCTOR_CACHE_DIR"] = root + "/i0"
def f(x, w):
    for k in range(7):
        x = torch.softmax(x * (k + 1), -1) + torch.nn.functional.layer_norm(x.sin(), (x.shape[-1],)); x = x @ w; x = torch.nn.functional.gelu(x) * torch.rsqrt(x.float().var(-1, keepdim=True) + k).to(x.dtype)
    return x.cumsum(0)
torch.compile(f)(torch.randn(256, 1024, device="cuda", dtype=torch.float16), torch.randn(1024, 1024, device="cuda", dtype=torch.float16))
kernels = list({s: (n, s) for n, s in got}.values())
import primed
from torch._inductor.async_compile import _load_triton_kernel_from_source, _worker_compile_triton
def one(how, n):
    where = tempfile.mkdtemp(dir=root)
    os.environ["PRIME"] = how
    t = time.time(); pool = SubprocPool(8, pickler=primed.PrimedPickler()); del os.environ["PRIME"]
    pool.submit(ac.AsyncCompile._get_ready).result(); ready = time.time() - t
    time.sleep(1)
    env = {"TRITON_CACHE_DIR": where + "/t", "TORCHINDUCTOR_CACHE_DIR": where + "/i"}
    def batch(ks):
        t = time.time()
        fs = [pool.submit(_worker_compile_triton, functools.partial(_load_triton_kernel_from_source, a, b), env, {}) for a, b in ks]
        first = None
        for x in fs:
            x.result()
            first = first or time.time() - t
        return round(first or 0, 2), round(time.time() - t, 2)
    a = batch(kernels[:n])
    b = batch(kernels[n:])
    pool.quiesce(); time.sleep(0.5)
    shutil.rmtree(where); 
    c = batch(kernels[:n])
    pool.shutdown()
    return {"how": how, "ready": round(ready, 2), "first batch (first,all)": a, "second": b, "after a quiesce": c}
def alone(n):
    # in this process, which is warm
    where = tempfile.mkdtemp(dir=root); os.environ["TRITON_CACHE_DIR"] = where; 
    t = time.time()
    for a, b in kernels[:n]:
        from torch._inductor.codecache import PyCodeCache
        PyCodeCache.cache_clear()
        k = _load_triton_kernel_from_source(a, b); k.precompile(warm_cache_only=False)
    return {"alone, warm": round(time.time() - t, 2)}
print("KERNELS", len(kernels), flush=True)
n = 8
for how in ["", "import", "compile", "compile", "import", ""] + ["", "compile"]:
    print("PRIME", json.dumps(one(how, n)), flush=True)
print("PRIME", json.dumps(alone(n)))
print(open(os.environ["PRIME_LOG"]).read())
shutil.rmtree(root)
