// SPDX-License-Identifier: Apache-2.0
// A gdb session on a stub engine: what each packet does and answers, and that bad ones do nothing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gdb_rig.h"

static int set_up(void **state) {
    return rig_open();
}
static int tear_down(void **state) {
    rig_shut();
    return 0;
}

static void feed(const char *packet) {
    uint8_t sum = 0;
    char end[4];
    rig.nsent = 0;
    rig.sent[0] = 0;
    gdb_session_receive(rig.session, '$');
    for (const char *p = packet; *p; p++) {
        gdb_session_receive(rig.session, (uint8_t)*p);
        sum = (uint8_t)(sum + (uint8_t)*p);
    }
    snprintf(end, sizeof(end), "#%02x", sum);
    for (unsigned i = 0; i < 3; i++)
        gdb_session_receive(rig.session, (uint8_t)end[i]);
}

// The data of the answer, NULL where there is none.
static const char *ask(const char *packet) {
    feed(packet);
    char *begin = strchr(rig.sent, '$');
    if (!begin)
        return NULL;
    *strrchr(begin, '#') = 0;
    return begin + 1;
}

static void event(unsigned cpu, enum debug_kind kind, uint64_t addr) {
    struct vm_exit e = {.reason = EXIT_DEBUG, .debug = {.kind = kind, .addr = addr}};
    rig.m.debugger.stopped(rig.m.debugger.ctx, &rig.m.vcpus[cpu], &e);
}

static void quit_loop(void *ctx) {
    event_loop_quit(rig.m.loop, 1);
}

// Lets the loop do what was posted. It can quit once, so this is the last of a test.
static void run_loop(void) {
    rig.nsent = 0;
    rig.sent[0] = 0;
    event_post(rig.m.loop, quit_loop, NULL);
    event_loop_run(rig.m.loop);
}

static void test_handshake(void **state) {
    assert_non_null(strstr(ask("qSupported:swbreak+;hwbreak+"), "qXfer:features:read+"));
    assert_string_equal(ask("?"), "T05thread:1;");
    assert_int_equal(rig.sent[0], '+');
    assert_string_equal(ask("qfThreadInfo"), "m1,2");
    assert_string_equal(ask("qsThreadInfo"), "l");
    assert_string_equal(ask("qC"), "QC1");
    assert_string_equal(ask("vMustReplyEmpty"), "");
    assert_string_equal(ask("qCRC:0,1"), ""); // not qC
    assert_string_equal(ask(""), "");
    assert_string_equal(ask("QStartNoAckMode"), "OK");
    feed("qC");
    assert_int_equal(rig.sent[0], '$'); // no more acknowledgements
}

static void test_bad_checksum_is_refused(void **state) {
    rig.nsent = 0;
    for (const char *p = "$k#00"; *p; p++)
        gdb_session_receive(rig.session, (uint8_t)*p);
    assert_int_equal(rig.nsent, 1);
    assert_int_equal(rig.sent[0], '-');
    assert_int_equal(atomic_load(&rig.m.end), MACHINE_RUNNING);
    ask("qC");
    rig.nsent = 0;
    gdb_session_receive(rig.session, '-'); // the answer once more
    assert_memory_equal(rig.sent, "$QC1#", 5);
}

static void test_description_comes_in_pieces(void **state) {
    char all[32768];
    size_t len = 0;
    for (;;) {
        char packet[64];
        snprintf(packet, sizeof(packet), "qXfer:features:read:target.xml:%zx,400", len);
        const char *piece = ask(packet);
        size_t n = strlen(piece);
        memcpy(all + len, piece + 1, n);
        len += n - 1;
        if (piece[0] == 'l')
            break;
        assert_int_equal(piece[0], 'm');
        assert_true(n - 1 <= 0x400);
    }
    assert_non_null(strstr(all, "<architecture>i386:x86-64</architecture>"));
    assert_non_null(strstr(all, "org.gnu.gdb.i386.avx"));
    assert_non_null(strstr(all, "name=\"rip\" bitsize=\"64\" type=\"code_ptr\" regnum=\"16\""));
    assert_non_null(strstr(all, "</target>"));
    assert_int_equal(ask("qXfer:features:read:other.xml:0,10")[0], 'E');
    assert_int_equal(ask("qXfer:features:read:target.xml:ffffffff,10")[0], 'E');
}

static void test_registers(void **state) {
    rig.cpu[1].state.gpr[X86_RBX] = 0x1122334455667788;
    assert_string_equal(ask("Hg2"), "OK");
    assert_string_equal(ask("p1"), "8877665544332211");
    assert_string_equal(ask("P0=0100000000000080"), "OK");
    assert_int_equal(strncmp(ask("g"), "01000000000000808877665544332211", 32), 0);
    assert_true(rig.cpu[1].state.gpr[X86_RAX] == 0);         // not before it goes on
    assert_string_equal(ask("P10=00000000000000ff"), "E16"); // RIP above 4 GiB in real mode: no such state
    assert_string_equal(ask("p1000"), "E16");
    assert_string_equal(ask("P0=01"), "E16");
    assert_string_equal(ask("G01"), "E16");
    assert_string_equal(ask("Hg3"), "E16");
    feed("c");
    assert_true(rig.cpu[1].state.gpr[X86_RAX] == 0x8000000000000001);
}

static void test_initial_fpu_registers(void **state) {
    uint32_t mxcsr = 0x1f80;
    memset(rig.cpu[0].state.xsave, 0xee, 512);
    memcpy(rig.cpu[0].state.xsave + 24, &mxcsr, 4);
    memset(rig.cpu[0].state.xsave + 512, 0, 8);                 // XSTATE_BV: all initial
    assert_string_equal(ask("p20"), "7f030000");                // fctrl
    assert_string_equal(ask("p22"), "ffff0000");                // ftag: empty
    assert_string_equal(ask("p18"), "00000000000000000000");    // st0
    assert_string_equal(ask("P18=00000000000000c0ff3f"), "OK"); // 1.5
    assert_string_equal(ask("P22=fcff0000"), "OK");             // physical register 0 in use, TOP is 0
    assert_string_equal(ask("p18"), "00000000000000c0ff3f");
    assert_string_equal(ask("p20"), "7f030000"); // became what it was said to be
    assert_string_equal(ask("p22"), "fcff0000");
    feed("c");
    assert_int_equal(rig.cpu[0].state.xsave[512], XCR0_X87);
}

static void test_memory(void **state) {
    assert_string_equal(ask("M1000,4:01020304"), "OK");
    assert_string_equal(ask("m1000,5"), "0102030400");
    assert_string_equal(ask("X1000,2:}\003z"), "OK"); // '#', 'z'
    assert_string_equal(ask("m1000,4"), "237a0304");
    assert_string_equal(ask("mfffe,4"), "0000"); // as far as there is memory
    assert_string_equal(ask("m10000,4"), "E0e");
    assert_string_equal(ask("Mfffe,4:00000000"), "E0e");
    assert_string_equal(ask("M1000,2:01"), "E16");
    assert_string_equal(ask("X1000,9:a"), "E16");
    assert_string_equal(ask("m1000"), "E16");
    assert_true(strlen(ask("m0,ffffffffffffffff")) <= GDB_PACKET_MAX);
    assert_string_equal(ask("X1000,0:"), "OK"); // gdb asks so whether X is known
}

// One 4 KiB and one 2 MiB page.
static void test_paging(void **state) {
    struct cpu_state *s = &rig.cpu[0].state;
    uint64_t pml4 = 0x2003, pdpt = 0x3003, table = 0x4003, large = 0x83, page = 0x5003;
    mem_write(rig.m.mem, GPA(0x1000), &pml4, 8);
    mem_write(rig.m.mem, GPA(0x2000), &pdpt, 8);
    mem_write(rig.m.mem, GPA(0x3000), &large, 8);
    mem_write(rig.m.mem, GPA(0x3008), &table, 8);
    mem_write(rig.m.mem, GPA(0x4008), &page, 8);
    mem_write(rig.m.mem, GPA(0x5ff0), "page", 4);
    s->cr0 |= CR0_PE | CR0_PG;
    s->cr4 |= CR4_PAE;
    s->efer |= EFER_LME | EFER_LMA;
    s->cr3 = 0x1000;
    assert_string_equal(ask("m201ff0,4"), "70616765");
    assert_string_equal(ask("m5ff0,4"), "70616765"); // by the large page
    assert_string_equal(ask("m202000,1"), "E0e");
    assert_string_equal(ask("m201ffe,4"), "0000");          // up to the end of what is mapped
    assert_string_equal(ask("m8000000000201ff0,4"), "E0e"); // not canonical
    assert_string_equal(ask("Qqemu.PhyMemMode:1"), "OK");
    assert_string_equal(ask("m201ff0,4"), "E0e");
}

static void test_points(void **state) {
    assert_string_equal(ask("Z0,1000,1"), "OK");
    assert_string_equal(ask("Z0,1000,1"), "OK"); // the same
    assert_int_equal(rig.npoints, 1);
    assert_string_equal(ask("Z1,2000,1"), "OK");
    assert_string_equal(ask("Z2,3000,8"), "OK");
    assert_string_equal(ask("Z3,3000,8"), ""); // this engine has no such thing
    assert_string_equal(ask("Z4,3000,0"), "E16");
    assert_string_equal(ask("Z2,fffffffffffffffe,4"), "E16");
    assert_string_equal(ask("Z5,3000,1"), "E16");
    assert_string_equal(ask("Z0"), "E16");
    assert_int_equal(rig.npoints, 3);
    assert_string_equal(ask("z0,1000,1"), "OK");
    assert_string_equal(ask("z0,1000,1"), "OK");
    assert_int_equal(rig.npoints, 2);
    assert_int_equal(rig.points[0].kind, DEBUG_WRITE);
    for (unsigned i = 0; i < 6; i++) {
        char packet[32];
        snprintf(packet, sizeof(packet), "Z0,%x,1", i);
        assert_string_equal(ask(packet), "OK");
    }
    assert_string_equal(ask("Z0,7777,1"), "E1c"); // ENOSPC
    gdb_session_end(rig.session);
    assert_int_equal(rig.npoints, 0); // the guest goes on without
}

static void test_running_answers_nothing_but_stop(void **state) {
    assert_null(ask("vCont;c"));
    assert_string_equal(ask("g"), "E10"); // EBUSY
    rig.nsent = 0;
    gdb_session_receive(rig.session, 3);
    assert_memory_equal(rig.sent, "$T02thread:1;#", 14);
    assert_int_equal(strlen(ask("p0")), 16);
    rig.nsent = 0;
    gdb_session_receive(rig.session, 3); // nothing runs: nothing to stop
    assert_int_equal(rig.nsent, 0);
}

static void test_step_of_one(void **state) {
    assert_null(ask("vCont;s:2"));
    assert_int_equal(rig.cpu[0].step, DEBUG_RUN);
    assert_true(rig.m.vcpus[0].held);
    assert_int_equal(rig.cpu[1].step, DEBUG_STEP_MASKED);
    assert_false(rig.m.vcpus[1].held);
    event(1, DEBUG_STEPPED, 0);
    run_loop();
    assert_memory_equal(rig.sent, "$T05thread:2;#", 14);
}

static void test_bad_vcont_does_not_run(void **state) {
    static const char *const bad[] = {"vCont", "vCont;", "vCont;x", "vCont;c:3", "vCont;c:1;", "vCont;C", "vCont;s:-2"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_string_equal(ask(bad[i]), "E16");
    assert_string_equal(ask("vCont?"), "vCont;c;C;s;S");
    assert_string_equal(ask("cxyz"), "E16");
}

// Two vCPUs stop at once: one is told, the other one's watchpoint when it is to go on, its breakpoint never.
static void test_two_stops(void **state) {
    ask("qSupported:swbreak+;hwbreak+");
    ask("Z2,3000,4");
    ask("Z0,1000,1");
    ask("vCont;s:1;c");
    event(0, DEBUG_SOFT, 0x1000);
    event(1, DEBUG_WRITE, 0x3000);
    run_loop();
    assert_memory_equal(rig.sent, "$T05thread:1;swbreak:;#", 23);
    assert_string_equal(ask("vCont;s:1;c"), "T05thread:2;watch:3000;");
    assert_null(ask("vCont;c")); // nothing is told twice
}

static void test_held_vcpu_keeps_its_event(void **state) {
    ask("Z2,3000,4");
    ask("vCont;c");
    event(0, DEBUG_STEPPED, 0);
    event(1, DEBUG_WRITE, 0x3000);
    run_loop();
    assert_memory_equal(rig.sent, "$T05thread:1;#", 14);
    assert_null(ask("vCont;s:1"));
    rig.nsent = 0;
    gdb_session_receive(rig.session, 3);
    assert_string_equal(ask("vCont;c"), "T05thread:2;watch:3000;");
}

static const char *monitor(const char *command) {
    static char text[GDB_PACKET_MAX];
    char packet[600] = "qRcmd,";
    for (size_t i = 0; command[i]; i++)
        snprintf(packet + 6 + 2 * i, 3, "%02x", (uint8_t)command[i]);
    const char *p = ask(packet);
    size_t n = strlen(p) / 2;
    assert_true(gdb_get_bytes(&p, text, n));
    text[n] = 0;
    return text;
}

static void test_monitor(void **state) {
    assert_non_null(strstr(monitor("help"), "registers"));
    assert_non_null(strstr(monitor("info"), "engine stub, 2 vCPUs"));
    assert_non_null(strstr(monitor("registers"), "cs_base    00000000ffff0000"));
    assert_string_equal(monitor("physical on"), "on\n");
    assert_string_equal(ask("qqemu.PhyMemMode"), "1");
    assert_string_equal(monitor("physical maybe"), "expected on or off\n");
    assert_string_equal(monitor("interrupts on"), "on\n");
    ask("vCont;s:1");
    assert_int_equal(rig.cpu[0].step, DEBUG_STEP);
    gdb_session_receive(rig.session, 3);
    assert_non_null(strstr(monitor("frobnicate"), "unknown command"));
    assert_non_null(strstr(monitor(""), "unknown command"));
    assert_string_equal(ask("qRcmd,6"), "E16");
}

static void test_kill_and_detach(void **state) {
    assert_string_equal(ask("D"), "OK");
    assert_true(rig.closed);
    gdb_session_end(rig.session);
    assert_int_equal(rig.m.stop_depth, 0);
    gdb_session_begin(rig.session);
    assert_int_equal(rig.m.stop_depth, 1);
    assert_string_equal(ask("vKill;1"), "OK");
    assert_int_equal(atomic_load(&rig.m.end), MACHINE_STOPPED);
}

static void test_end_is_told(void **state) {
    ask("c");
    rig.nsent = 0;
    gdb_session_exited(rig.session, 67);
    assert_memory_equal(rig.sent, "$W43#", 5);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_handshake),
        T(test_bad_checksum_is_refused),
        T(test_description_comes_in_pieces),
        T(test_registers),
        T(test_initial_fpu_registers),
        T(test_memory),
        T(test_paging),
        T(test_points),
        T(test_running_answers_nothing_but_stop),
        T(test_step_of_one),
        T(test_bad_vcont_does_not_run),
        T(test_two_stops),
        T(test_held_vcpu_keeps_its_event),
        T(test_monitor),
        T(test_kill_and_detach),
        T(test_end_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
