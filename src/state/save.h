// SPDX-License-Identifier: Apache-2.0
// Saving a running machine into two open files, `state` and `memory`. Everything on the loop thread; the work with the
// files is the writer thread's.
//
// Live: RAM is written while the guest runs, in rounds: first all of it, then what the dirty log names, until little is
// left. Then the machine stops, what is left is copied, the components are saved, and the guest goes on while the copy
// is written. So it stands for as long as the copy of the last dirty pages takes. Stopped: the machine stands from the
// beginning, and stays so until save_finish.
#ifndef CICADA_STATE_SAVE_H
#define CICADA_STATE_SAVE_H

#include "core/machine.h"
#include "state/ram_writer.h"

struct save;

enum save_phase {
    SAVE_IDLE,
    SAVE_MORE,   // the guest runs, what else there is is copied (save_options.background)
    SAVE_RAM,    // the guest runs (live) or stands, RAM is written
    SAVE_COMMIT, // the moment of the snapshot is past, the rest is written
    SAVE_DONE,   // both files are complete and on the disk; waits for save_finish
    SAVE_FAILED, // error says why; waits for save_finish
};

struct save_options {
    int state_fd, memory_fd; // owned from save_begin on, also where it fails
    bool live;
    bool diff; // only pages written since the last snapshot that save_finish kept, or since the restore
    // At the moment of the snapshot, machine paused; what else has to be told of it then. May be NULL.
    int (*moment)(void *ctx, struct error *err);
    // Live: what else has to be copied while the guest runs, on the writer's thread: before the first page, and again
    // right before the moment. 0 or negative errno. May be NULL.
    int (*background)(void *ctx);
    // The job is over, kept or not; nobody works for it any more. Not where save_begin fails. May be NULL.
    void (*over)(void *ctx);
    void *ctx;
};

struct save_progress {
    enum save_phase phase;
    uint64_t pages_done, pages_total; // of the present round
    unsigned round;
    uint64_t pause_ns;    // the longest time for which the guest stood
    uint64_t state_bytes; // SAVE_DONE
    uint32_t state_crc;   // SAVE_DONE
    uint64_t clock_ns;    // virtual time of the moment
    struct error error;   // SAVE_FAILED
};

int save_create(struct machine *m, struct save **s, struct error *err);
// Starts the writer thread, with the vCPUs'.
int save_start(struct save *s, struct error *err);
void save_destroy(struct save *s); // before the machine; NULL is legal

// -EBUSY while another is not finished, -EINVAL for a difference to nothing.
int save_begin(struct save *s, const struct save_options *opt, struct error *err);
void save_progress(const struct save *s, struct save_progress *p);
// Ends a job in any phase; keep: the snapshot is the one that the next difference refers to. A machine that stands for
// it goes on, unless stay_stopped. 0, or -EINVAL where keep is asked for and it is not SAVE_DONE (it then ends all the
// same).
int save_finish(struct save *s, bool keep, bool stay_stopped, struct error *err);
bool save_busy(const struct save *s); // between save_begin and the end of the job
// Is there a snapshot that a difference can refer to? save_set_parent says so after a restore.
bool save_has_parent(const struct save *s);
void save_set_parent(struct save *s);

#endif
