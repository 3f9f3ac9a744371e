import triton, triton.language as tl
@triton.jit
def add(x, y, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    tl.store(y + i, tl.exp(tl.load(x + i, mask=m).to(tl.float32)) + tl.sum(tl.load(x + i, mask=m), 0), mask=m)
