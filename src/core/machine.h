// SPDX-License-Identifier: Apache-2.0
// The machine: what every board shares, its vCPU threads and its life cycle.
#ifndef CICADA_CORE_MACHINE_H
#define CICADA_CORE_MACHINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/clock.h"
#include "core/component.h"
#include "core/engine.h"
#include "core/event.h"
#include "core/irq.h"
#include "core/mem.h"
#include "core/nondet.h"

// Why the machine stopped; the CLI turns it into the documented exit code.
enum machine_end {
    MACHINE_RUNNING,
    MACHINE_POWEROFF,     // 0
    MACHINE_HOST_FAILURE, // 2
    MACHINE_CRASH,        // 3: triple fault, pvpanic
    MACHINE_RESET,        // 4: reset with --no-reboot
    MACHINE_INTERNAL,     // 5
    MACHINE_DEBUG_EXIT,   // debug-exit port; code in machine.debug_exit
    MACHINE_STOPPED,      // cicada stop: 0
    MACHINE_SIGNAL,       // code 128 + signal
    MACHINE_KILLED,       // Ctrl-A x: 130
    MACHINE_SUSPENDED,    // its state has gone elsewhere (suspend, migrate): 6
};

enum vcpu_phase { VCPU_STOPPED, VCPU_RUNNING, VCPU_HALTED };

struct vcpu {
    struct machine *machine;
    unsigned index;
    struct engine_vcpu *engine; // owned
    pthread_t thread;
    bool thread_started;
    atomic_int phase;     // enum vcpu_phase, for ps and stats
    atomic_int wake;      // a futex: vcpu_wake was called since the last wait, or is waited for (vcpu.c)
    pthread_mutex_t lock; // guards start_result, with cond
    pthread_cond_t cond;
    bool held;               // by the debugger: stands still while others run; under machine.run_lock
    struct vcpu_call *call;  // to be made at the barrier, NULL: none; under machine.run_lock
    int start_result;        // of vcpu_enter_thread; 1 until it has returned
    struct error *start_err; // where vcpu_enter_thread reports
};

// How a board reacts; set by vmm before machine_start.
struct machine_ops {
    // Const table of EXIT_REASON_COUNT handlers by exit reason, each for one vCPU on its thread. EXIT_KICKED never
    // reaches it; a reason with no handler ends the machine with MACHINE_INTERNAL.
    void (*const *exit_table)(struct vcpu *v, struct vm_exit *exit);
    // Puts the machine into its state at power-on: boot protocol loaded, vCPU states set. Called on the loop thread
    // with the vCPUs stopped, right after component_reset_all.
    int (*power_on)(struct machine *m, struct error *err);
};

// Whoever debugs the machine; set before machine_start_threads.
struct machine_debugger {
    // A vCPU has stopped for it (EXIT_DEBUG), on that vCPU's thread. It executes nothing before a machine_pause_begin
    // called in here has been taken back.
    void (*stopped)(void *ctx, struct vcpu *v, const struct vm_exit *exit); // NULL: there is none
    void *ctx;
};

struct machine {
    const struct machine_ops *ops;
    void *board; // of vmm
    const struct engine_ops *engine_ops;
    struct engine *engine;
    struct engine_host host;
    struct mem *mem;
    struct nondet nondet;
    struct event_loop *loop;
    struct clock clock;
    struct irq_router irq;
    struct component_list components;
    struct vcpu *vcpus; // host.vcpus of them
    bool no_reboot;
    int debug_exit; // V written to the debug-exit port
    int end_signal;
    atomic_int end; // enum machine_end
    // Stop-the-world: vCPU threads stand at the barrier while stop_depth > 0. Under run_lock.
    pthread_mutex_t run_lock;
    pthread_cond_t run_cond, stopped_cond;
    unsigned stop_depth, vcpus_stopped;
    unsigned threads; // vCPU threads that take part; fixed once the vCPUs run
    bool quitting;    // under run_lock: vCPU threads return
    bool quiesced;    // components are paused; loop thread only
    atomic_bool reset_pending;
    bool paused; // by a control action; of vmm, core does not look at it
    struct machine_debugger debugger;
};

// Creates mem, event loop, clock, irq router; no vCPU yet. m is the caller's storage; on failure call
// machine_destroy as well. The machine starts stopped: the clock stands and stop_depth is 1 until machine_run.
int machine_init(struct machine *m, struct error *err);
// Creates the engine and the vCPUs. The board sets ops and, in host, exit, ctx, vcpus, irqchips and cpu_policy before.
int machine_create_vcpus(struct machine *m, const struct engine_ops *ops, const struct engine_options *opt,
                         struct error *err);
// Starts the vCPU threads; they stand still until machine_resume. Part of phase "open".
int machine_start_threads(struct machine *m, struct error *err);
// Powers on and lets the vCPUs run; then runs the event loop until the machine ends.
// Returns the enum machine_end, with all vCPUs stopped and the devices quiesced. err is filled only when the power-on
// failed. Called on the main thread, after the seal.
enum machine_end machine_run(struct machine *m, struct error *err);
// The same for a machine whose state comes from elsewhere: it stands, paused and in its reset state, while the loop
// runs. Who has loaded its state calls machine_resume once.
enum machine_end machine_run_incoming(struct machine *m);
void machine_destroy(struct machine *m); // joins the threads; components, engine, memory, in this order

// Requests, thread-safe, also from vCPU threads and device handlers (not from signal handlers): they return at once,
// and the calling vCPU executes no further guest instruction. The first end wins.
void machine_end(struct machine *m, enum machine_end end);
// Guest asked for a reset: ends with MACHINE_RESET if no_reboot, else all vCPUs stop, power_on runs, they go on.
void machine_reset_request(struct machine *m);

// Stops all vCPUs at an instruction boundary, the clock, and quiesces devices; nests. Loop thread only, without any
// device's lock: a vCPU may be inside that device.
void machine_pause(struct machine *m);
void machine_resume(struct machine *m);
// Stops the vCPUs alone: devices, clock and timers go on. machine_resume ends it as well. Loop thread, as above.
void machine_stop_vcpus(struct machine *m);
// The two halves of machine_pause: the first on any thread, it does not wait; the second on the loop thread.
void machine_pause_begin(struct machine *m);
void machine_pause_finish(struct machine *m);

// A held vCPU stands still when the machine goes on, until it is let go. While the machine is paused.
void vcpu_hold(struct vcpu *v, bool held);

// Makes the vCPU's thread call fn while it stands, and waits for it. Loop thread, machine paused, threads started.
// Returns what fn did.
int vcpu_call(struct vcpu *v, int (*fn)(void *ctx, struct error *err), void *ctx, struct error *err);

// Wakes a halted vCPU and makes a running one look at its interrupt controller. Any thread.
void vcpu_wake(struct vcpu *v);

// For the handlers of EXIT_HALT and EXIT_WAIT_SIPI, on the vCPU's thread: blocks until a vcpu_wake (one that came since
// the last wait counts) or until the vCPU must stop. May return for nothing: the engine looks again and halts again.
void vcpu_wait_for_interrupt(struct vcpu *v);

#endif
