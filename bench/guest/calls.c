// SPDX-License-Identifier: Apache-2.0
// Calls and returns: deep and shallow recursion, calls through tables of functions, and returns that do not pair with
// their calls (longjmp, switching stacks), which break every prediction of return addresses.
#include "bench.h"
#include <setjmp.h>

#define NOINLINE __attribute__((noinline, noclone))

static NOINLINE uint64_t fib_step(uint64_t n) {
    return n < 2 ? n : fib_step(n - 1) + fib_step(n - 2);
}
static uint64_t fib(uint64_t work) {
    return fib_step(work);
}

static NOINLINE uint64_t ackermann_step(uint64_t m, uint64_t n) {
    if (m == 0)
        return n + 1;
    uint64_t inner = n ? ackermann_step(m, n - 1) : 1;
    BENCH_HIDE(inner);
    uint64_t r = ackermann_step(m - 1, inner);
    BENCH_HIDE(r); // no tail call: the stack grows deep
    return r;
}
static uint64_t ackermann(uint64_t work) {
    return ackermann_step(2, work);
}

// Goes down further than any return stack of a CPU or translator and comes back up.
static NOINLINE uint64_t descend(uint64_t depth, uint64_t x) {
    if (!depth)
        return x;
    uint64_t r = descend(depth - 1, x * 3 + depth);
    BENCH_HIDE(r);
    return r ^ depth;
}
static uint64_t deep_return(uint64_t work) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < work; i++)
        sum = bench_mix(sum, descend(5000, i));
    return sum;
}

struct shape;
struct shape_ops {
    uint64_t (*area)(const struct shape *);
    uint64_t (*grow)(struct shape *, uint64_t by);
};
struct shape {
    const struct shape_ops *ops;
    uint64_t a, b;
};
static NOINLINE uint64_t square_area(const struct shape *s) {
    return s->a * s->a;
}
static NOINLINE uint64_t square_grow(struct shape *s, uint64_t by) {
    return s->a = (s->a + by) & 0xffff;
}
static NOINLINE uint64_t rect_area(const struct shape *s) {
    return s->a * s->b;
}
static NOINLINE uint64_t rect_grow(struct shape *s, uint64_t by) {
    return s->b = (s->b + s->a + by) & 0xfff;
}
static NOINLINE uint64_t tri_area(const struct shape *s) {
    return s->a * s->b / 2;
}
static NOINLINE uint64_t tri_grow(struct shape *s, uint64_t by) {
    return s->a = (s->a ^ by) & 0x3ff;
}
static const struct shape_ops kinds[] = {
    {square_area, square_grow}, {rect_area, rect_grow}, {tri_area, tri_grow}, {square_area, tri_grow}};

static uint64_t virtual_calls(uint64_t work) {
    static struct shape shapes[64];
    uint64_t state = 3, sum = 0;
    for (unsigned i = 0; i < 64; i++)
        shapes[i] = (struct shape){&kinds[bench_random(&state) % 4], i + 1, i * 2 + 1};
    for (uint64_t turn = 0; turn < work; turn++)
        for (unsigned i = 0; i < 64; i++) {
            struct shape *s = &shapes[i];
            sum += s->ops->area(s) + s->ops->grow(s, turn);
        }
    return sum;
}

static NOINLINE uint64_t leaf(uint64_t x) {
    return x * 5 + 1;
}
static NOINLINE uint64_t middle(uint64_t x) {
    return leaf(x) + leaf(x + 1);
}
static NOINLINE uint64_t outer(uint64_t x) {
    return middle(x) ^ middle(x + 3);
}
static uint64_t small_calls(uint64_t work) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < work; i++)
        sum = bench_mix(sum, outer(i));
    return sum;
}

static jmp_buf escape;
static NOINLINE uint64_t dive(unsigned depth, uint64_t x) {
    if (depth) {
        x += dive(depth - 1, x + depth);
        BENCH_HIDE(x);
    }
    if (!depth)
        longjmp(escape, (int)(x & 0xff) + 1);
    return x;
}
static uint64_t long_jumps(uint64_t work) {
    volatile uint64_t sum = 0, i;
    for (i = 0; i < work; i++) {
        int r = setjmp(escape);
        sum = r ? bench_mix(sum, r) : dive(i % 8, i);
    }
    return sum;
}

// Two stacks that take turns; the switch is a jump with RSP exchanged, as in every coroutine library.
static uint64_t baton;
__asm__(".text\nbench_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, (%rdi)\nmov (%rsi), %rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
void bench_switch(void **save, void **load);
static void *main_sp, *other_sp;
static void other(void) {
    for (;;) {
        baton = bench_mix(baton, 1);
        bench_switch(&other_sp, &main_sp);
    }
}
static uint64_t coroutines(uint64_t work) {
    static uint64_t stack[4096];
    // What bench_switch pops: six registers and the address of other; aligned as after a call.
    stack[4088 - 1] = 0;
    stack[4088 - 2] = (uint64_t)(uintptr_t)other;
    other_sp = &stack[4088 - 8];
    baton = 0;
    for (uint64_t i = 0; i < work; i++) {
        bench_switch(&main_sp, &other_sp);
        baton ^= i;
    }
    return baton;
}

const struct bench_case bench_calls[] = {
    {"fib", fib},
    {"ackermann", ackermann},
    {"deep-return", deep_return},
    {"virtual", virtual_calls},
    {"small-calls", small_calls},
    {"longjmp", long_jumps},
    {"coroutines", coroutines},
    {0},
};
