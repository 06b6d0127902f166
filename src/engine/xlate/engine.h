// SPDX-License-Identifier: Apache-2.0
// The engine of one VM: what its vCPUs share.
#ifndef CICADA_XLATE_ENGINE_H
#define CICADA_XLATE_ENGINE_H

#include "engine/xlate/xlock.h"

#include "engine/xlate/xlate.h"

struct code_cache;

struct xlate_opts {
    bool exact_flags;   // arithmetic flags exact at every fault, not only where some instruction may still read them
    bool no_chain;      // every exit of a block goes through C
    bool no_jcache;     // every indirect jump goes through C
    bool no_groups;     // every access has a TLB check of its own
    bool no_sites;      // no page remembered per place in user code
    bool no_hoist;      // no loops without checks
    bool emulate;       // no translated code at all
    unsigned max_jcc;   // conditional branches in a block
    unsigned max_insns; // instructions in a block, at most TB_MAX_INSNS
};

// Points of a debugger (debugger.h). Changed while the vCPUs stand.
struct debugger {
    struct debug_point *points; // owned
    unsigned count, breakpoints, watchpoints;
};

struct engine {
    const struct engine_host *host;
    struct xlate_opts opts;
    struct code_cache *cache;      // owned
    struct xlock emul_mutex;       // emul_lock
    struct mem_listener *listener; // owned
    void *translator;              // struct tctx, owned, under the cache's lock
    atomic_uint kill_count;        // code pages killed so far
    struct xcpu **cpus;            // host->vcpus of them, NULL until created
    unsigned ncpus;
    struct debugger debugger;
    unsigned profile_hz; // 0: no profiler
    int perf_map;        // perf_map.c: descriptor, 0 when off
};

// Entry points that cache_init_trampolines generated.
typedef uint64_t (*enter_fn)(struct xcpu *x, const void *code);

#endif
