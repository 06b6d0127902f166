// SPDX-License-Identifier: Apache-2.0
// XSAVE and XRSTOR by the host's own instructions, where the guest's state is live in the host's registers.
#ifndef CICADA_XLATE_XSAVE_NATIVE_H
#define CICADA_XLATE_XSAVE_NATIVE_H

#include "engine/xlate/xlate.h"

enum xsave_form { XSAVE_PLAIN, XSAVE_OPT, XSAVE_COMPACT };

// Saves the components of rfbm (a subset of the guest's XCR0) to an area of `bytes` at lin, which was probed for
// writing. false: nothing was done, the emulator has to (state not live, x87 in use, two pages, code page).
bool xsave_native(struct xcpu *x, enum xsave_form form, uint64_t rfbm, uint64_t lin, unsigned bytes);

// A copy of the area that no other vCPU can change between the checks and XRSTOR.
struct xsave_image {
    uint8_t b[X86_XSAVE_SIZE];
} __attribute__((aligned(64)));
// Restores from an image whose header and MXCSR the caller has found good. false: nothing was done.
bool xrstor_native(struct xcpu *x, uint64_t rfbm, const struct xsave_image *image);

#endif
