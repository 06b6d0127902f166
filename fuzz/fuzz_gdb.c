// SPDX-License-Identifier: Apache-2.0
// Fuzzes what can be sent to the gdb socket. Lines of the input become packets with a good checksum, so that the fuzzer
// need not guess it; a line that begins with '!' goes out as it is, and one with '@' makes a vCPU report an event.
#include "../tests/unit/gdb_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void receive(uint8_t byte) {
    gdb_session_receive(rig.session, byte);
}

static void packet(const uint8_t *line, size_t n) {
    uint8_t sum = 0;
    char end[4];
    receive('$');
    for (size_t i = 0; i < n; i++) {
        receive(line[i]);
        sum = (uint8_t)(sum + line[i]);
    }
    snprintf(end, sizeof(end), "#%02x", sum);
    for (unsigned i = 0; i < 3; i++)
        receive((uint8_t)end[i]);
}

static void event(const uint8_t *line, size_t n) {
    struct vm_exit e = {.reason = EXIT_DEBUG};
    if (n < 2 || !rig.m.debugger.stopped)
        return;
    e.debug.kind = line[0] % (DEBUG_ACCESS + 1);
    e.debug.addr = line[1];
    rig.m.debugger.stopped(rig.m.debugger.ctx, &rig.m.vcpus[line[1] % RIG_VCPUS], &e);
}

static void take_line(const uint8_t *line, size_t n) {
    if (n && line[0] == '@')
        event(line + 1, n - 1);
    else if (n && line[0] == '!')
        for (size_t i = 1; i < n; i++)
            receive(line[i]);
    else
        packet(line, n);
    rig.nsent = 0;
}

// One machine for all inputs: to make one takes longer than to run an input. Its loop never runs, so what is posted
// there is posted once.
static void begin(void) {
    static bool open;
    if (!open && rig_open())
        abort();
    open = true;
    for (unsigned i = 0; i < RIG_VCPUS; i++)
        x86_state_reset(&rig.cpu[i].state, i == 0, false);
    gdb_session_begin(rig.session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    begin();
    rig.read_watch = size & 1;
    while (size) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t n = end ? (size_t)(end - data) : size;
        take_line(data, n);
        data += end ? n + 1 : n;
        size -= end ? n + 1 : n;
    }
    gdb_session_end(rig.session);
    return 0;
}
