// SPDX-License-Identifier: Apache-2.0
// Inherited descriptors and capabilities. Capabilities belong to threads (capabilities(7)), so every thread that
// exists by now drops its own, in a signal handler; later threads inherit. no_new_privs of the others comes with
// the filter: SECCOMP_FILTER_FLAG_TSYNC carries it over (seccomp(2)).
#define LOG_UNIT "seal"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sandbox/seal.h"
#include "util/log.h"

// ---- descriptors ----

#define INHERITED_MAX 1024 // above that they are closed without being remembered
static uint64_t inherited[INHERITED_MAX / 64];

static void open_standard(void) {
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

void seal_note_inherited(void) {
    open_standard();
    for (int fd = STDERR_FILENO + 1; fd < INHERITED_MAX; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            inherited[fd / 64] |= (uint64_t)1 << (fd % 64);
    syscall(SYS_close_range, INHERITED_MAX, ~0u, 0);
}

static void close_inherited(void) {
    for (int fd = STDERR_FILENO + 1; fd < INHERITED_MAX; fd++)
        if (inherited[fd / 64] >> (fd % 64) & 1)
            close(fd);
    memset(inherited, 0, sizeof(inherited));
}

// ---- capabilities ----

static atomic_int dropped; // threads that have dropped theirs

static int capabilities_drop(void) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    return syscall(SYS_capset, &head, none) == 0 ? 0 : -errno;
}

static bool capabilities_held(void) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &head, data) != 0)
        return true;
    return data[0].effective | data[0].permitted | data[1].effective | data[1].permitted;
}

static void drop_here(int sig) {
    int saved = errno;
    if (capabilities_drop() == 0)
        atomic_fetch_add(&dropped, 1);
    errno = saved;
}

// Sends sig to every other thread of the process. Returns how many there were.
static int signal_others(int sig) {
    int sent = 0;
    pid_t self = (pid_t)syscall(SYS_gettid);
    DIR *dir = opendir("/proc/self/task");
    struct dirent *d;
    while (dir && (d = readdir(dir))) {
        pid_t tid = (pid_t)strtol(d->d_name, NULL, 10);
        if (tid > 0 && tid != self && syscall(SYS_tgkill, getpid(), tid, sig) == 0)
            sent++;
    }
    if (dir)
        closedir(dir);
    return sent;
}

static void drop_in_others(void) {
    int sig = SIGRTMIN + 1;
    long nap_ns = 20000;
    struct sigaction old, act = {.sa_handler = drop_here, .sa_flags = SA_RESTART};
    sigfillset(&act.sa_mask);
    sigaction(sig, &act, &old);
    atomic_store(&dropped, 0);
    int sent = signal_others(sig);
    for (; atomic_load(&dropped) < sent && nap_ns < 200000000; nap_ns *= 2) // 0.3 s in all
        nanosleep(&(struct timespec){.tv_nsec = nap_ns}, NULL);
    if (atomic_load(&dropped) < sent) // a thread of the kernel for io_uring, or one that blocks all signals
        log_info("%d of %d threads keep their capabilities", sent - atomic_load(&dropped), sent);
    else
        sigaction(sig, &old, NULL);
}

int seal_privileges(struct error *err) {
    close_inherited();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return error_set(err, -errno, "set no_new_privs");
    if (!capabilities_held())
        return 0;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    drop_in_others();
    int ret = capabilities_drop();
    return ret ? error_set(err, ret, "drop capabilities") : 0;
}
