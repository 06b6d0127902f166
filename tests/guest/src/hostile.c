// SPDX-License-Identifier: Apache-2.0
// Guests that misbehave; which one says the command line. Each prints "ready" and then
//   spin      loops with interrupts off            triple    triple-faults
//   halt      halts with interrupts off            cf9, kbd, port92   resets the machine
//   ports     writes garbage to all I/O ports      mmio      writes garbage to all device memory
//   rings     gives virtio devices broken rings    escape    tries instructions that must not reach the host
//   chaos     runs random bytes in user mode (seed=1..9 for others)
// Those that are to survive end with "alive" and exit code 0 of the debug-exit port.
// beds: xlate (docs/BEDS.md)
#include "apic.h"
#include "pagetables.h"

static u64 seed = 88172645463325252ull;
static u32 garbage(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (u32)(seed >> 16);
}

static bool ignore(struct frame *f) {
    return true;
}
static void ignore_interrupts(void) {
    handlers[NMI] = ignore;
    for (unsigned v = 32; v < 256; v++)
        handlers[v] = v == LEAVE ? 0 : ignore;
}

static void uart_restore(void) {
    outb(0x3fb, 3);
    outb(0x3f9, 0);
    outb(0x3fa, 1);
    outb(0x3fc, 3);
}

// ---- ports ----

// Ports that end the guest when written: debug exit, reset, power-off, panic.
static bool deadly(unsigned port, unsigned size) {
    static const u16 ports[] = {0x64, 0x92, 0xcf9, 0xf4, 0xf5, 0xf6, 0xf7, 0x505, 0x604, 0x605};

    for (unsigned i = 0; i < sizeof(ports) / sizeof(*ports); i++)
        if (ports[i] >= port && ports[i] < port + size)
            return true;
    return false;
}

static void ports(void) {
    for (unsigned round = 0; round < 3; round++)
        for (unsigned p = 0; p < 0x10000; p++) {
            unsigned size = 1u << round;

            if (deadly(p, size) || p + size > 0x10000)
                continue;
            switch (size) {
            case 1: outb((u16)p, (u8)garbage()), inb((u16)p); break;
            case 2: outw((u16)p, (u16)garbage()), inw((u16)p); break;
            case 4: outl((u16)p, garbage()), inl((u16)p); break;
            }
        }
    for (unsigned i = 0; i < 2000; i++) { // the chips themselves, harder
        static const u16 chips[] = {0x20,  0x21,  0xa0,  0xa1,  0x40,  0x41,  0x42,  0x43,  0x60,
                                    0x61,  0x70,  0x71,  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3ff,
                                    0x4d0, 0x4d1, 0x510, 0x511, 0x514, 0x518, 0x600, 0x602};
        u16 p = chips[garbage() % (sizeof(chips) / sizeof(*chips))];

        outb(p, (u8)garbage());
        inb(p);
    }
    for (unsigned i = 0; i < 1000; i++) { // PCI configuration by ports
        outl(0xcf8, 0x80000000 | (garbage() & 0xfffffc));
        outl(0xcfc, garbage());
        inl(0xcfc);
    }
}

// ---- device memory ----

static void poke(u64 a, unsigned size) {
    u32 v = garbage();

    switch (size & 3) {
    case 0: *(volatile u8 *)a = (u8)v, (void)*(volatile u8 *)a; break;
    case 1: *(volatile u16 *)a = (u16)v, (void)*(volatile u16 *)a; break;
    case 2: *(volatile u32 *)a = v, (void)*(volatile u32 *)a; break;
    case 3: *(volatile u64 *)a = v * 0x100000001ull, (void)*(volatile u64 *)a; break;
    }
}

static void mmio(void) {
    for (u64 a = 0xe0000000; a < 0xe0100000; a += 4 + garbage() % 64) // PCI configuration space, also odd addresses
        poke(a, garbage());
    for (u64 a = 0xc0000000; a < 0xe0000000; a += 0x800 + garbage() % 64)
        poke(a, garbage());
    for (u64 a = 0xfec00000; a < 0xfec01000; a++)
        poke(a, garbage());
    for (unsigned i = 0; i < 4000; i++) { // I/O APIC registers
        *(volatile u32 *)0xfec00000 = garbage() & 0x3f;
        *(volatile u32 *)0xfec00010 = garbage();
    }
    for (u64 a = 0xfee00000; a < 0xfee00ff8; a++)
        if ((a & 0xfff) < 0x2f0 || (a & 0xfff) >= 0x320) // not the ICR: it could INIT this very vCPU
            poke(a, garbage());
    for (unsigned i = 0; i < 100; i++) {
        poke(0xfee00000 - 1 - i, garbage());
        poke(0xfee01000 + i, garbage());
    }
    // Locked, repeated and vector accesses to device memory.
    TRY("lock addl $1, 0x80(%%rdi); lock cmpxchg8b 0x300(%%rdi); mov $64, %%ecx; rep movsb", 0xfee00000, 0xfec00000, 0);
    write_cr4(read_cr4() | CR4_OSFXSR);
    TRY("movups %%xmm0, 1(%%rdi); movups 3(%%rdi), %%xmm1; movdqu %%xmm1, 4088(%%rdi); fnsave 0x100(%%rdi); "
        "fxsave 0x400(%%rdi)",
        0xfec00000, 0, 0);
    TRY("jmp *%%rdi", 0xfec00000, 0, 0); // code in device memory
    TRY("jmp *%%rdi", 0xfee00000, 0, 0);
}

// ---- virtio rings ----

struct virtio {
    volatile u8 *common, *notify;
    u32 multiplier;
};
static u64 ecam(unsigned slot, unsigned reg) {
    return 0xe0000000 + (slot << 15) + reg;
}
static u8 cfg8(unsigned s, unsigned r) {
    return *(volatile u8 *)ecam(s, r);
}
static u32 cfg32(unsigned s, unsigned r) {
    return *(volatile u32 *)ecam(s, r);
}

static bool virtio_find(unsigned slot, struct virtio *v) {
    if ((cfg32(slot, 0) & 0xffff) != 0x1af4)
        return false;
    *v = (struct virtio){0};
    *(volatile u16 *)ecam(slot, 4) |= 6;
    for (unsigned cap = cfg8(slot, 0x34); cap; cap = cfg8(slot, cap + 1)) {
        unsigned type = cfg8(slot, cap + 3), bar = cfg8(slot, cap + 4);
        u64 base;

        if (cfg8(slot, cap) != 9 || bar > 5)
            continue;
        base = cfg32(slot, 0x10 + 4 * bar) & ~15u;
        if (type == 1)
            v->common = (volatile u8 *)(base + cfg32(slot, cap + 8));
        if (type == 2) {
            v->notify = (volatile u8 *)(base + cfg32(slot, cap + 8));
            v->multiplier = cfg32(slot, cap + 16);
        }
    }
    return v->common && v->notify;
}
#define C8(v, off)  (*(volatile u8 *)((v)->common + (off)))
#define C16(v, off) (*(volatile u16 *)((v)->common + (off)))
#define C32(v, off) (*(volatile u32 *)((v)->common + (off)))

static void virtio_negotiate(struct virtio *v) {
    C8(v, 0x14) = 0;
    while (C8(v, 0x14))
        ;
    C8(v, 0x14) = 3;
    C32(v, 8) = 1; // driver features: VERSION_1, and what the device offers below bit 32
    C32(v, 12) = 1;
    C32(v, 0) = 0;
    u32 low = C32(v, 4);
    C32(v, 8) = 0;
    C32(v, 12) = low;
    C8(v, 0x14) = 11;
}

// One queue with a ring of garbage of the given kind.
static void broken_queue(struct virtio *v, unsigned queue, unsigned kind) {
    u8 *ring = page_alloc();
    struct {
        u64 addr;
        u32 len;
        u16 flags, next;
    } *d = (void *)ring;
    volatile u16 *avail = (volatile u16 *)(ring + 1024);
    u16 size;

    virtio_negotiate(v);
    C16(v, 0x16) = (u16)queue;
    size = C16(v, 0x18);
    if (!size)
        return;
    C16(v, 0x18) = kind == 9 ? 0xffff : 8;
    for (unsigned i = 0; i < 8; i++) {
        d[i].addr = kind == 0 ? garbage() | (u64)garbage() << 32 : (u64)ring;
        d[i].len = kind == 1 ? 0xffffffff : kind == 2 ? 0 : kind == 8 ? garbage() : 16;
        d[i].flags = kind == 3 ? 1 : kind == 4 ? 4 : kind == 5 ? 5 : (u16)(garbage() & 7);
        d[i].next = kind == 3 ? (u16)i : kind == 6 ? 0xffff : (u16)((i + 1) & 7);
    }
    avail[1] = kind == 7 ? 0x7fff : 3; // idx
    for (unsigned i = 0; i < 8; i++)
        avail[2 + i] = kind == 8 ? (u16)garbage() : (u16)(i & 7);
    for (unsigned part = 0; part < 3; part++) {
        u64 at = kind == 10 ? 0xfffffffffffff000ull : kind == 11 ? 0xfee00000 : (u64)ring + 1024 * part;

        C32(v, 0x20 + 8 * part) = (u32)at;
        C32(v, 0x24 + 8 * part) = (u32)(at >> 32);
    }
    C16(v, 0x1c) = 1;
    C8(v, 0x14) = 15;
    *(volatile u16 *)(v->notify + v->multiplier * C16(v, 0x1e)) = (u16)queue;
    for (volatile unsigned wait = 0; wait < 20000; wait++)
        if (kind & 1)
            ring[1024 + wait % 64] = (u8)garbage(); // changes while the device reads
}

static void rings(void) {
    unsigned found = 0;

    for (unsigned slot = 0; slot < 32; slot++) {
        struct virtio v;

        if (!virtio_find(slot, &v))
            continue;
        found++;
        for (unsigned kind = 0; kind < 12; kind++)
            for (unsigned queue = 0; queue < 4; queue++)
                broken_queue(&v, queue, kind);
        C8(&v, 0x14) = 0; // it must still be possible to reset it
        for (volatile unsigned wait = 0; wait < 1000000 && C8(&v, 0x14); wait++)
            ;
        CHECK(C8(&v, 0x14) == 0);
    }
    print_dec(found);
    print(" devices\n");
    CHECK(found > 0);
}

// ---- instructions that must not reach the host ----

// Every opcode of one and two bytes with some ModRM bytes and prefixes, at CPL 3, in both widths, until it faults, ends
// or runs away (a timer would end it: code that loops is short). The bytes after it are INT 0x80.
static void try_bytes(const u8 *bytes, unsigned n, bool wide) {
    static u8 *page;

    if (!page) {
        user_setup();
        page = page_alloc();
        map(FREE_LOW, (word)page, P | RW | US);
    }
    u8 code[32];
    for (unsigned i = 0; i < sizeof(code); i++)
        code[i] = i < n ? bytes[i] : (i - n) & 1 ? 0x80 : 0xcd;
    for (unsigned i = 0; i < sizeof(code) / 8; i++) // few stores: each kills the translated code
        ((u64 *)page)[i] = ((u64 *)code)[i];
    entry.ip = FREE_LOW;
    entry.cs = wide ? UCS64 : UCS32;
    entry.sp = USER_STACK - 512;
    entry.flags = 2 | (garbage() & 1 ? FL_IOPL : 0);
    (void)ENTER(USER_DATA, USER_DATA + 64, 1);
}

static bool never_mind(u8 op) {
    return op == 0xeb || op == 0xe2 || op == 0xe9 || op == 0xe8;
} // may jump onto themselves

static void escape(void) {
    static const u8 prefixes[] = {0, 0x66, 0xf2, 0xf3, 0x48, 0xf0};

    for (unsigned wide = 0; wide < 2; wide++)
        for (unsigned p = 0; p < sizeof(prefixes); p++)
            for (unsigned op = 0; op < 512; op++)
                for (unsigned modrm = 0; modrm < 256; modrm += 1 + garbage() % 96) {
                    u8 b[8];
                    unsigned n = 0;

                    if (prefixes[p])
                        b[n++] = prefixes[p];
                    if (op >= 256)
                        b[n++] = 0x0f;
                    else if (never_mind((u8)op) || (op & 0xf0) == 0x70 || (op >= 0xe0 && op < 0xe4) ||
                             (op >= 0xe4 && op < 0xe8) || (op >= 0xec && op < 0xf0) || op == 0x6e || op == 0x6f)
                        continue; // branches; ports, which have a test of their own
                    b[n++] = (u8)op;
                    b[n++] = (u8)modrm;
                    try_bytes(b, n, wide);
                }
}

// Random bytes as code of 64, 32 and 16 bits at CPL 3, with flags at random; the timer ends what loops.
static void chaos(void) {
    static const u8 spice[] = {0x0f, 0x66, 0xf2, 0xf3, 0xf0, 0x48, 0x67, 0xc4,
                               0xc5, 0x64, 0x65, 0x2e, 0xff, 0xcd, 0xcf};
    u8 *page = page_alloc(), *second = page_alloc();

    for (unsigned i = 1; i < 10; i++) {
        char text[] = {'s', 'e', 'e', 'd', '=', (char)('0' + i), 0};

        if (option(text))
            seed += i * 0x9e3779b97f4a7c15ull;
    }
    user_setup();
    map(FREE_LOW, (word)page, P | RW | US);
    map(FREE_LOW + 4096, (word)second, P | RW | US);
    gdt[SEL_FREE / 8] = 0x0000fb000000ffff | FREE_LOW << 16 | (FREE_LOW >> 24) << 56; // 16-bit code
    write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXSAVE * has(1, 2, 26));
    apic_on();
    apic_write(APIC_LVT_TIMER, 0x61);
    for (unsigned i = 0; i < 20000; i++) {
        unsigned at = i & 1 ? garbage() % 4096 : 4096 - garbage() % 16, mode = garbage() % 3;

        for (unsigned k = 0; k < 24; k++) {
            u8 b = garbage() % 3 ? (u8)garbage() : spice[garbage() % sizeof(spice)];

            (at + k < 4096 ? page : second - 4096)[(at + k) % 8192] = b;
        }
        entry.cs = mode == 0 ? UCS64 : mode == 1 ? UCS32 : SEL_FREE | 3;
        entry.ip = mode == 2 ? at : FREE_LOW + at;
        entry.sp = USER_STACK - 512;
        entry.ss = UDS;
        entry.data_sel = UDS;
        entry.flags = 2 | FL_IF | (garbage() & (FL_CF | FL_TF | FL_DF | FL_OF | FL_NT | FL_RF | FL_AC | FL_ID));
        apic_write(APIC_INITIAL, 500000);
        handlers[0x61] = 0;
        (void)ENTER(USER_DATA, USER_DATA + 512, garbage());
        apic_write(APIC_INITIAL, 0);
        if (trap.vector == 0x61)
            eoi();
    }
}

TEST(hostile) {
    ignore_interrupts();
    print("ready\n");
    if (option("spin"))
        for (;;)
            asm volatile("cli");
    if (option("halt"))
        for (;;)
            asm volatile("cli; hlt");
    if (option("triple")) {
        idt_load(0);
        asm volatile("ud2");
    }
    if (option("cf9"))
        outb(0xcf9, 2), outb(0xcf9, 6);
    if (option("kbd"))
        outb(0x64, 0xfe);
    if (option("port92"))
        outb(0x92, 1);
    if (option("ports"))
        ports();
    if (option("mmio"))
        mmio();
    if (option("rings"))
        rings();
    if (option("escape"))
        escape();
    if (option("chaos"))
        chaos();
    uart_restore();
    print("alive\n");
}
