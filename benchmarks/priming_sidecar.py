import os, sys, time
from torch._inductor.compile_worker.subproc_pool import SubprocPickler
class PrimedPickler(SubprocPickler):
    pass
def prime(how):
    t = time.time()
    log = {}
    import torch._inductor.runtime.triton_heuristics, torch._inductor.runtime.triton_helpers, torch._inductor.runtime.hints, torch._inductor.runtime.compile_tasks
    import torch._inductor.codecache
    log["imports"] = time.time() - t
    if how == "compile":
        import tempfile, shutil
        t = time.time()
        import triton, triton.language as tl
        from triton.compiler import ASTSource
        from triton.backends.compiler import GPUTarget
        import kern
        before = os.environ.get("TRITON_CACHE_DIR"); d = tempfile.mkdtemp()
        os.environ["TRITON_CACHE_DIR"] = d
        try:
            triton.compile(ASTSource(fn=kern.add, signature={"x": "*fp32", "y": "*fp32", "n": "i32", "B": "constexpr"}, constexprs={(3,): 128}), target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
        finally:
            shutil.rmtree(d, ignore_errors=True)
            if before is None: del os.environ["TRITON_CACHE_DIR"]
            else: os.environ["TRITON_CACHE_DIR"] = before
        log["compile"] = time.time() - t
    log["tasks"] = len(os.listdir("/proc/self/task"))
    with open(os.environ["PRIME_LOG"], "a") as f: f.write(how + " " + repr(log) + "\n")
if "compile_worker" in " ".join(sys.orig_argv) and os.environ.get("PRIME"):
    try: prime(os.environ["PRIME"])
    except Exception as e:
        import traceback
        open(os.environ["PRIME_LOG"], "a").write(traceback.format_exc())
