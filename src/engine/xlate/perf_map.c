// SPDX-License-Identifier: Apache-2.0
// One line a block, written when the block is: perf reads the file after the recording, whatever became of the VM.
// After a flush of the code cache addresses are used again and stand in the file twice; the last one is right.
#include "engine/xlate/perf_map.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/xlate/tb.h"

int perf_map_open(struct engine *e, struct error *err) {
    char path[64];
    snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
    unlink(path); // of an earlier process with our number
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(err, -errno, "--perf-map: create '%s'", path);
    e->perf_map = fd;
    struct emit_space s;
    cache_space(e, &s);
    uint64_t start = (uint64_t)cache_tramps(e)->enter, end = (uint64_t)s.rw + (uint64_t)s.delta;
    dprintf(fd, "%" PRIx64 " %" PRIx64 " trampolines\n", start & PAGE_MASK, end - (start & PAGE_MASK));
    return 0;
}

void perf_map_close(struct engine *e) {
    if (e->perf_map > 0)
        close(e->perf_map);
    e->perf_map = 0;
}

void perf_map_add(struct engine *e, const struct tb *tb) {
    if (__builtin_expect(e->perf_map <= 0, 1))
        return;
    const uint8_t *end = tb->code + tb->host_size;
    dprintf(e->perf_map, "%" PRIx64 " %" PRIx64 " %s_%" PRIx64 "\n", (uint64_t)tb->guarded,
            (uint64_t)(end - tb->guarded), tb->page->mode & TBM_USER ? "user" : "kernel", tb->rip);
}
