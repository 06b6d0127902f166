// SPDX-License-Identifier: Apache-2.0
// What tests/debug looks at with gdb: functions to stop in, data to watch. The guest itself sees to it that nothing of
// the debugger shows: its code keeps its bytes, its own breakpoints and steps are its own.
#include "guest.h"

volatile u64 watched[4];
volatile u8 bytes[16];
volatile unsigned rounds = 3, spins;

#define STATION(n)                                                                                                     \
    __attribute__((noipa)) unsigned station##n(unsigned v) {                                                           \
        return v + n;                                                                                                  \
    }
// clang-format off: macros without semicolons
STATION(1)
STATION(2)
STATION(3)
STATION(4)
STATION(5)
STATION(6)
// clang-format on

static u64 checksum(const void *from, const void *to) {
    u64 sum = 0;

    for (const volatile u8 *p = from; p < (const volatile u8 *)to; p++)
        sum = sum * 31 + *p;
    return sum;
}

TEST(stations) {
    u64 sum = checksum(station1, station6);
    unsigned v = 0;

    for (unsigned i = 0; i < rounds; i++) {
        v = station1(v);
        v = station2(v);
        v = station3(v);
        v = station4(v);
        v = station5(v);
        v = station6(v);
        EQ(checksum(station1, station6), sum);
    }
    EQ(v, 21 * rounds);
}

__attribute__((noipa)) void write_watched(unsigned i, u64 v) {
    watched[i] = v;
}
__attribute__((noipa)) u64 read_watched(unsigned i) {
    return watched[i];
}
TEST(watched_data) {
    for (unsigned i = 0; i < 4; i++)
        write_watched(i, 100 + i);
    for (unsigned i = 0; i < 4; i++)
        EQ(read_watched(i), 100 + i);
    for (unsigned i = 0; i < 16; i++)
        bytes[i] = (u8)i;
    asm volatile("rep movsb" ::"D"(bytes + 8), "S"(bytes), "c"(4ul) : "memory");
    EQ(bytes[11], 3);
}

// The guest's own INT3, INT1 and single step come to the guest.
static unsigned own;
static bool count_own(struct frame *f) {
    own++;
    return true;
}
__attribute__((noipa)) void before_own_traps(void) {}
TEST(own_traps) {
    before_own_traps();
    handlers[BP] = count_own;
    EQ(TRY0("int3; nop"), NONE);
    EQ(own, 1);
    handlers[DB] = count_own;
    EQ(TRY0("pushf; orl $0x100, (%%rsp); popf; nop; pushf; andl $~0x100, (%%rsp); popf"), NONE);
    EQ(own, 5);
}

// Where Ctrl-C finds it; the debugger lets it go by setting spins.
__attribute__((noipa)) void spin(void) {
    while (!spins)
        asm volatile("pause");
}
TEST(spin) {
    if (option("spin"))
        spin();
}
