// SPDX-License-Identifier: Apache-2.0
// 16550A. Output is not paced: a byte leaves as soon as the host side takes it; while that is full, THRE stays
// clear and the guest waits, the vCPU does not. Input never overruns: what does not fit stays at the host side.
// All state is under `lock`; the host side is never called with it held.
// Input waits until the guest listens (guest_listens): drivers clear the FIFO when they start, which would eat
// what was typed or piped in before.
// The interrupt is not gated by OUT2 as on PC boards: small guests forget it.
#include "dev/ns16550.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define FIFO_SIZE    16
#define BASE_BAUD    115200 // at divisor 1
#define POLLS_LISTEN 64

enum { IER_RX = 0x01, IER_TX = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08 };
enum { IIR_NONE = 0x01, IIR_MODEM = 0x00, IIR_TX = 0x02, IIR_RX = 0x04, IIR_LINE = 0x06, IIR_TIMEOUT = 0x0c };
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10 };
enum { LSR_DATA = 0x01, LSR_OVERRUN = 0x02, LSR_BREAK = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80, MSR_DELTAS = 0x0f };

struct ns16550 {
    struct machine *machine;
    unsigned gsi;
    struct chardev *chr;
    pthread_mutex_t lock;
    struct vtimer timeout_timer;
    uint8_t ier, fcr, lcr, mcr, msr, scratch;
    uint16_t divisor;
    uint8_t line_errors; // LSR bits 4:1
    bool tx_pending;     // THRE interrupt not yet acknowledged
    bool timeout;        // character timeout indication
    bool irq;            // level driven
    uint8_t rx[FIFO_SIZE], tx[FIFO_SIZE];
    unsigned rx_count, tx_count;
    bool rx_refused; // the host side waits for rx_ready
    uint8_t polls;   // reads of LSR in a row, up to POLLS_LISTEN
    // One thread at a time hands tx to the host side; a wake-up or a FIFO clear meanwhile is noted.
    bool tx_busy, tx_kick, tx_cleared;
};

static bool fifo_on(const struct ns16550 *u) {
    return u->fcr & FCR_ENABLE;
}
static unsigned fifo_depth(const struct ns16550 *u) {
    return fifo_on(u) ? FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct ns16550 *u) {
    static const uint8_t levels[] = {1, 4, 8, 14};

    return fifo_on(u) ? levels[u->fcr >> 6] : 1;
}

// ---- interrupt ----

// Datasheet table IV: the most urgent cause.
static uint8_t interrupt_id(const struct ns16550 *u) {
    if (u->ier & IER_LINE && u->line_errors)
        return IIR_LINE;
    if (u->ier & IER_RX && u->rx_count >= rx_trigger(u))
        return IIR_RX;
    if (u->ier & IER_RX && u->timeout)
        return IIR_TIMEOUT;
    if (u->ier & IER_TX && u->tx_pending)
        return IIR_TX;
    if (u->ier & IER_MODEM && u->msr & MSR_DELTAS)
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct ns16550 *u) {
    bool level = interrupt_id(u) != IIR_NONE;

    if (level == u->irq)
        return;
    u->irq = level;
    irq_set(&u->machine->irq, u->gsi, level);
}

// Data below the trigger level are told of after four character times without a new one (10 bits each).
static void restart_timeout(struct ns16550 *u) {
    uint64_t ns;

    u->timeout = false;
    if (!fifo_on(u) || !(u->ier & IER_RX) || !u->rx_count || u->rx_count >= rx_trigger(u))
        return;
    ns = UINT64_C(40) * 1000000000 / BASE_BAUD * (u->divisor ? u->divisor : 1);
    vtimer_arm(&u->timeout_timer, clock_now_ns(&u->machine->clock) + (ns < 20000000 ? ns : 20000000));
}

// A timer that fires for data that were read meanwhile finds nothing; for newer data it is a little early.
static void timeout_fired(void *ctx) {
    struct ns16550 *u = ctx;

    pthread_mutex_lock(&u->lock);
    u->timeout = fifo_on(u) && u->rx_count && u->rx_count < rx_trigger(u);
    update_irq(u);
    pthread_mutex_unlock(&u->lock);
}

// ---- transmitter ----

static void tx_emptied(struct ns16550 *u) {
    u->tx_pending = true;
    update_irq(u);
}

// Takes the lock held, gives it up around each call of the host side, returns with it held.
static void tx_drain(struct ns16550 *u) {
    uint8_t buf[FIFO_SIZE];
    unsigned n;
    size_t done;

    if (u->tx_busy) {
        u->tx_kick = true;
        return;
    }
    u->tx_busy = true;
    do {
        n = u->tx_count;
        memcpy(buf, u->tx, n);
        u->tx_kick = u->tx_cleared = false;
        pthread_mutex_unlock(&u->lock);
        done = n ? chardev_write(u->chr, buf, n) : 0;
        pthread_mutex_lock(&u->lock);
        if (done > n)
            done = n;
        if (!u->tx_cleared && done) {
            u->tx_count -= done;
            memmove(u->tx, u->tx + done, u->tx_count);
            if (!u->tx_count)
                tx_emptied(u);
        }
    } while (u->tx_count && (done == n || u->tx_kick));
    u->tx_busy = false;
}

static void chr_writable(void *ctx) {
    struct ns16550 *u = ctx;

    pthread_mutex_lock(&u->lock);
    tx_drain(u);
    pthread_mutex_unlock(&u->lock);
}

// ---- receiver ----

static void rx_push(struct ns16550 *u, uint8_t byte) {
    if (u->rx_count >= fifo_depth(u)) {
        u->line_errors |= LSR_OVERRUN;
        return;
    }
    u->rx[u->rx_count++] = byte;
}

// Drivers raise a modem line (PC boards need OUT2 for interrupts) once they are set up; guests that do without
// enable the receive interrupt (0x0f is a probe) or poll LSR, which for output never takes long.
static bool guest_listens(const struct ns16550 *u) {
    return u->mcr & (MCR_DTR | MCR_RTS | MCR_OUT2) || (u->ier & IER_RX && u->ier != 0x0f) || u->polls == POLLS_LISTEN;
}

static bool rx_open(const struct ns16550 *u) {
    return !(u->mcr & MCR_LOOP) && u->rx_count < fifo_depth(u) && guest_listens(u);
}

size_t ns16550_receive(struct ns16550 *u, const uint8_t *buf, size_t n) {
    size_t taken = 0;

    pthread_mutex_lock(&u->lock);
    while (taken < n && rx_open(u))
        rx_push(u, buf[taken++]);
    u->rx_refused = taken < n;
    if (taken) {
        restart_timeout(u);
        update_irq(u);
    }
    pthread_mutex_unlock(&u->lock);
    return taken;
}

bool ns16550_can_receive(struct ns16550 *u) {
    bool open;

    pthread_mutex_lock(&u->lock);
    open = rx_open(u);
    if (!open)
        u->rx_refused = true;
    pthread_mutex_unlock(&u->lock);
    return open;
}

// Datasheet: a break loads one zero character.
void ns16550_receive_break(struct ns16550 *u) {
    pthread_mutex_lock(&u->lock);
    u->line_errors |= LSR_BREAK;
    if (rx_open(u))
        rx_push(u, 0);
    restart_timeout(u);
    update_irq(u);
    pthread_mutex_unlock(&u->lock);
}

static size_t chr_receive(void *ctx, const uint8_t *buf, size_t n) {
    return ns16550_receive(ctx, buf, n);
}

// The host side is asked for more when all was read: fewer, larger pieces. Lock held; given up for the call.
static void rx_resume(struct ns16550 *u) {
    if (!u->rx_refused || u->rx_count || !rx_open(u))
        return;
    u->rx_refused = false;
    pthread_mutex_unlock(&u->lock);
    chardev_rx_ready(u->chr);
    pthread_mutex_lock(&u->lock);
}

static uint8_t rx_pop(struct ns16550 *u) {
    uint8_t byte = u->rx[0];

    if (!u->rx_count)
        return 0;
    memmove(u->rx, u->rx + 1, --u->rx_count);
    restart_timeout(u);
    return byte;
}

// ---- modem lines ----

static uint8_t modem_lines(const struct ns16550 *u) {
    uint8_t lines = 0;

    if (!(u->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD; // a peer that is always there
    lines |= u->mcr & MCR_RTS ? MSR_CTS : 0;
    lines |= u->mcr & MCR_DTR ? MSR_DSR : 0;
    lines |= u->mcr & MCR_OUT1 ? MSR_RI : 0;
    lines |= u->mcr & MCR_OUT2 ? MSR_DCD : 0;
    return lines;
}

// Delta bits 3:0 follow changes of 7:4, but RI counts only when it goes away.
static void update_modem(struct ns16550 *u) {
    uint8_t lines = modem_lines(u), changed = (u->msr ^ lines) & 0xf0;

    if (lines & MSR_RI)
        changed &= ~MSR_RI;
    u->msr = lines | (u->msr & MSR_DELTAS) | changed >> 4;
}

// ---- registers ----

static void write_data(struct ns16550 *u, uint8_t val) {
    if (u->mcr & MCR_LOOP) {
        rx_push(u, val);
        restart_timeout(u);
        tx_emptied(u);
        return;
    }
    if (u->tx_count < fifo_depth(u))
        u->tx[u->tx_count++] = val;
    else
        u->tx[u->tx_count - 1] = val; // written over: the guest did not wait for THRE
    u->tx_pending = false;
    update_irq(u);
    tx_drain(u);
}

static void write_ier(struct ns16550 *u, uint8_t val) {
    uint8_t enabled = val & ~u->ier;

    u->ier = val & 0x0f;
    if (enabled & IER_TX && !u->tx_count)
        u->tx_pending = true;
    if (enabled & IER_RX)
        restart_timeout(u);
}

static void write_fcr(struct ns16550 *u, uint8_t val) {
    bool toggled = (val ^ u->fcr) & FCR_ENABLE;

    u->fcr = val & FCR_ENABLE ? val & 0xc9 : 0;
    if (toggled || val & FCR_CLEAR_RX)
        u->rx_count = 0;
    if ((toggled || val & FCR_CLEAR_TX) && u->tx_count) {
        u->tx_count = 0;
        u->tx_cleared = true;
        u->tx_pending = true;
    }
    restart_timeout(u);
}

static uint8_t read_iir(struct ns16550 *u) {
    uint8_t id = interrupt_id(u);

    if (id == IIR_TX)
        u->tx_pending = false;
    return id | (fifo_on(u) ? 0xc0 : 0);
}

static uint8_t read_lsr(struct ns16550 *u) {
    uint8_t val = u->line_errors | (u->rx_count ? LSR_DATA : 0) | (u->tx_count ? 0 : LSR_THRE | LSR_TEMT);

    u->line_errors = 0;
    if (val & LSR_THRE && u->polls < POLLS_LISTEN)
        u->polls++;
    return val;
}

static uint8_t read_msr(struct ns16550 *u) {
    uint8_t val = u->msr;

    u->msr &= ~MSR_DELTAS;
    return val;
}

static uint8_t uart_read_register(struct ns16550 *u, unsigned reg) {
    bool dlab = u->lcr & LCR_DLAB;

    switch (reg) {
    case 0: return dlab ? u->divisor & 0xff : rx_pop(u);
    case 1: return dlab ? u->divisor >> 8 : u->ier;
    case 2: return read_iir(u);
    case 3: return u->lcr;
    case 4: return u->mcr;
    case 5: return read_lsr(u);
    case 6: return read_msr(u);
    default: return u->scratch;
    }
}

static void uart_write_register(struct ns16550 *u, unsigned reg, uint8_t val) {
    bool dlab = u->lcr & LCR_DLAB;

    if (u->polls < POLLS_LISTEN)
        u->polls = 0;

    switch (reg) {
    case 0:
        if (dlab)
            u->divisor = (u->divisor & 0xff00) | val;
        else
            write_data(u, val);
        break;
    case 1:
        if (dlab)
            u->divisor = (uint16_t)((u->divisor & 0xff) | val << 8);
        else
            write_ier(u, val);
        break;
    case 2: write_fcr(u, val); break;
    case 3: u->lcr = val; break;
    case 4:
        u->mcr = val & 0x1f;
        update_modem(u);
        break;
    case 7: u->scratch = val; break;
    }
}

static void uart_read(void *ctx, struct bus_access *a) {
    struct ns16550 *u = ctx;

    pthread_mutex_lock(&u->lock);
    a->data = uart_read_register(u, a->offset & 7);
    update_irq(u);
    rx_resume(u);
    pthread_mutex_unlock(&u->lock);
}

static void uart_write(void *ctx, const struct bus_access *a) {
    struct ns16550 *u = ctx;

    pthread_mutex_lock(&u->lock);
    uart_write_register(u, a->offset & 7, a->data & 0xff);
    update_irq(u);
    rx_resume(u);
    pthread_mutex_unlock(&u->lock);
}

// ---- component ----

static void uart_reset(void *ctx) {
    struct ns16550 *u = ctx;

    pthread_mutex_lock(&u->lock);
    vtimer_cancel(&u->timeout_timer);
    u->ier = u->fcr = u->lcr = u->mcr = u->scratch = u->line_errors = 0;
    u->divisor = 1;
    u->tx_pending = u->timeout = false;
    u->rx_count = u->tx_count = 0;
    u->tx_cleared = true;
    u->polls = 0;
    u->rx_refused = true; // the host side may have offered input to nobody
    u->msr = modem_lines(u);
    update_irq(u);
    rx_resume(u);
    pthread_mutex_unlock(&u->lock);
}

static void uart_resume(void *ctx) {
    struct ns16550 *u = ctx;

    pthread_mutex_lock(&u->lock);
    tx_drain(u);
    if (!u->timeout)
        restart_timeout(u);
    u->rx_refused = true; // the host side may be another one now
    rx_resume(u);
    pthread_mutex_unlock(&u->lock);
}

static void uart_save(void *ctx, struct state_writer *w) {
    struct ns16550 *u = ctx;
    const uint8_t bytes[] = {u->ier,
                             u->fcr,
                             u->lcr,
                             u->mcr,
                             u->msr,
                             u->scratch,
                             u->line_errors,
                             u->tx_pending,
                             u->timeout,
                             (uint8_t)u->irq,
                             u->rx_count & 0x1f,
                             u->tx_count & 0x1f,
                             u->polls};

    state_put_bytes(w, bytes, sizeof(bytes));
    state_put_u16(w, u->divisor);
    state_put_bytes(w, u->rx, sizeof(u->rx));
    state_put_bytes(w, u->tx, sizeof(u->tx));
}

static int uart_load(void *ctx, struct state_reader *r, struct error *err) {
    struct ns16550 *u = ctx;

    u->ier = state_get_u8(r) & 0x0f;
    u->fcr = state_get_u8(r) & 0xc9;
    u->lcr = state_get_u8(r);
    u->mcr = state_get_u8(r) & 0x1f;
    u->msr = state_get_u8(r);
    u->scratch = state_get_u8(r);
    u->line_errors = state_get_u8(r) & 0x1e;
    u->tx_pending = state_get_u8(r);
    u->timeout = state_get_u8(r);
    u->irq = state_get_u8(r);
    u->rx_count = state_get_u8(r);
    u->tx_count = state_get_u8(r);
    u->polls = state_get_u8(r);
    u->divisor = state_get_u16(r);
    state_get_bytes(r, u->rx, sizeof(u->rx));
    state_get_bytes(r, u->tx, sizeof(u->tx));
    if (!r->error && u->rx_count <= FIFO_SIZE && u->tx_count <= FIFO_SIZE && u->polls <= POLLS_LISTEN)
        return 0;
    uart_reset(u);
    return error_set(err, -EINVAL, "saved 16550 state is damaged");
}

static void uart_destroy(void *ctx) {
    struct ns16550 *u = ctx;

    vtimer_fini(&u->timeout_timer);
    pthread_mutex_destroy(&u->lock);
    free(u);
}

static const struct component_ops component_ops = {
    .name = "ns16550",
    .version = 1,
    .reset = uart_reset,
    .resume = uart_resume,
    .save = uart_save,
    .load = uart_load,
    .destroy = uart_destroy,
};

static const struct bus_ops uart_ops = {.name = "ns16550", .read = uart_read, .write = uart_write};

int ns16550_create(struct dev_env *env, uint16_t port, unsigned gsi, unsigned instance, struct chardev *chr,
                   struct ns16550 **out, struct error *err) {
    const struct dev_range range = {env->pio, port, 8, &uart_ops};
    struct ns16550 *u = calloc(1, sizeof(*u));
    int ret;

    if (!u)
        return error_set(err, -ENOMEM, "create 16550");
    pthread_mutex_init(&u->lock, NULL);
    u->machine = env->machine;
    u->gsi = gsi;
    vtimer_init(&u->timeout_timer, &env->machine->clock, timeout_fired, u);
    uart_reset(u);
    u->chr = chr;
    ret = dev_attach(env, &component_ops, u, instance, &range, 1, err);
    if (ret) {
        uart_destroy(u);
        return ret;
    }
    if (chr) {
        chr->dev_receive = chr_receive;
        chr->dev_writable = chr_writable;
        chr->dev = u;
    }
    *out = u;
    return 0;
}
