// SPDX-License-Identifier: Apache-2.0
// XSAVE and XRSTOR by the host's own instructions (SDM vol. 1 ch. 13).
//
// The host writes the x87 pointers of its own code, so areas with x87 state in use are the emulator's. XSAVEOPT's
// modified optimization cannot misfire: no XRSTOR of the host ever reads the guest's area itself.
#include "engine/xlate/xsave_native.h"

#include <cpuid.h>

#include "engine/xlate/cache.h"
#include "engine/xlate/debugger.h"
#include "engine/xlate/mmu.h"

#define XSAVE_LEAF_OPT     1u // CPUID.(EAX=0DH,ECX=1):EAX
#define XSAVE_LEAF_COMPACT 2u
#define XSAVE_LEAF_XINUSE  4u
#define XSAVE_LEAF_ALL     (XSAVE_LEAF_OPT | XSAVE_LEAF_COMPACT | XSAVE_LEAF_XINUSE)

// Whatever form the guest asks for, the host has it.
static bool host_has_all(void) {
    static uint8_t known; // 1 no, 2 yes
    unsigned a = 0, b, c, d;
    if (!known)
        known = __get_cpuid_count(13, 1, &a, &b, &c, &d) && (a & XSAVE_LEAF_ALL) == XSAVE_LEAF_ALL ? 2 : 1;
    return known == 2;
}

static uint64_t xinuse(void) {
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(1));
    return (uint64_t)hi << 32 | lo;
}

static void save(enum xsave_form form, uint32_t rfbm, uint8_t *to) {
    switch (form) {
    case XSAVE_PLAIN: __asm__ volatile("xsave64 (%0)" ::"r"(to), "a"(rfbm), "d"(0) : "memory"); break;
    case XSAVE_OPT: __asm__ volatile("xsaveopt64 (%0)" ::"r"(to), "a"(rfbm), "d"(0) : "memory"); break;
    case XSAVE_COMPACT: __asm__ volatile("xsavec64 (%0)" ::"r"(to), "a"(rfbm), "d"(0) : "memory"); break;
    }
}

bool xsave_native(struct xcpu *x, enum xsave_form form, uint64_t rfbm, uint64_t lin, unsigned bytes) {
    if (!x->fpu_live || !cpu_64bit(x) || !host_has_all() || (lin & ~PAGE_MASK) + bytes > PAGE_SIZE)
        return false;
    if ((xinuse() & rfbm & XCR0_X87) || debugger_watches(x->engine, lin))
        return false;
    smc_writer_enter(x);
    uint8_t *to = mmu_page_ptr(x, lin, MMU_WRITE);
    if (to)
        save(form, (uint32_t)rfbm, to);
    smc_writer_leave(x);
    return to;
}

bool xrstor_native(struct xcpu *x, uint64_t rfbm, const struct xsave_image *image) {
    uint64_t in_area;
    __builtin_memcpy(&in_area, image->b + 512, sizeof(in_area));
    if (!x->fpu_live || !cpu_64bit(x) || !host_has_all() || (in_area & rfbm & XCR0_X87))
        return false;
    __asm__ volatile("xrstor64 (%0)" ::"r"(image->b), "a"((uint32_t)rfbm), "d"(0) : "memory");
    return true;
}
