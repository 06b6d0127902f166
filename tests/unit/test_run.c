// SPDX-License-Identifier: Apache-2.0
// `cicada run` as a whole, in child processes, on a fake board with a fake engine whose "guest" does what the kernel
// command line says: exit codes, signals, control, and that the seal holds.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cli/crash.h"
#include "cli/terminal.h"
#include "sandbox/seal.h"
#include "vmm/board.h"
#include "vmm/control.h"
#include "vmm/instance.h"
#include "vmm/run.h"

// ---- the fake engine ----

struct engine_vcpu {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool kicked;
};

static struct engine_vcpu the_vcpu = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
static int *volatile nowhere; // a null pointer that the compiler does not know to be one
static const char *script;
static struct chardev *serial;
static struct machine the_machine;

static int engine_create(const struct engine_host *host, const struct engine_options *opt, struct engine **e,
                         struct error *err) {
    return 0;
}
static void engine_destroy(struct engine *e) {}
static int vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **v, struct error *err) {
    *v = &the_vcpu;
    return 0;
}
static void vcpu_destroy(struct engine_vcpu *v) {}

static void kick(struct engine_vcpu *v) {
    pthread_mutex_lock(&v->lock);
    v->kicked = true;
    pthread_cond_signal(&v->cond);
    pthread_mutex_unlock(&v->lock);
}

static void wait_for_kick(struct engine_vcpu *v) {
    pthread_mutex_lock(&v->lock);
    while (!v->kicked)
        pthread_cond_wait(&v->cond, &v->lock);
    v->kicked = false;
    pthread_mutex_unlock(&v->lock);
}

static bool any_capability(void) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    return syscall(SYS_capget, &head, data) != 0 || data[0].permitted || data[1].permitted;
}

// What the guest's vCPU thread does; true when it is done.
static void act(void) {
    struct machine *m = &the_machine;
    if (strcmp(script, "poweroff") == 0) {
        machine_end(m, MACHINE_POWEROFF);
    } else if (strcmp(script, "crash") == 0) {
        machine_end(m, MACHINE_CRASH);
    } else if (strcmp(script, "reset") == 0) {
        machine_reset_request(m);
    } else if (strcmp(script, "debug") == 0) {
        m->debug_exit = 0x11;
        machine_end(m, MACHINE_DEBUG_EXIT);
    } else if (strcmp(script, "output") == 0) {
        chardev_write(serial, (const uint8_t *)"console\n", 8);
        machine_end(m, MACHINE_POWEROFF);
    } else if (strcmp(script, "open") == 0) { // a call that is refused; 5 where it was not
        int fd = open("/etc/passwd", O_RDONLY);
        machine_end(m, fd < 0 && errno == EACCES ? MACHINE_POWEROFF : MACHINE_INTERNAL);
    } else if (strcmp(script, "library") == 0) { // what libraries do behind our backs
        time_t now = time(NULL);
        struct tm tm;
        void *big = malloc(64 << 20);
        localtime_r(&now, &tm);
        free(big);
        machine_end(m, MACHINE_POWEROFF);
    } else if (strcmp(script, "segfault") == 0) {
        *nowhere = 0;
    } else if (strcmp(script, "abort") == 0) {
        abort();
    } else if (strcmp(script, "exec") == 0) {
        execl("/bin/true", "true", NULL);
    } else if (strcmp(script, "wx") == 0) {
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    } else if (strcmp(script, "kill") == 0) {
        syscall(SYS_tgkill, getppid(), getppid(), 0);
    } else if (strcmp(script, "capget") == 0) {
        any_capability();
    } else if (strcmp(script, "socket") == 0) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        machine_end(m, fd >= 0 ? MACHINE_POWEROFF : MACHINE_INTERNAL);
    } else if (strcmp(script, "unixsocket") == 0) {
        socket(AF_UNIX, SOCK_STREAM, 0);
    }
}

static void engine_run(struct engine_vcpu *v, uint64_t budget, struct vm_exit *exit) {
    act();
    script = "wait";
    wait_for_kick(v);
    exit->reason = EXIT_KICKED;
}

static const struct engine_ops engine = {
    .name = "fake",
    .create = engine_create,
    .destroy = engine_destroy,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .run = engine_run,
    .kick = kick,
    .poke = kick,
};

// ---- the fake board ----

struct board {
    int inherited;
};

static void (*const no_exits[EXIT_REASON_COUNT])(struct vcpu *, struct vm_exit *);
static int power_on(struct machine *m, struct error *err) {
    return strcmp(script, "unbootable") == 0 ? error_set(err, -ENOEXEC, "kernel 'x'") : 0;
}
static const struct machine_ops machine_ops = {.exit_table = no_exits, .power_on = power_on};

int board_create(const struct vm_config *cfg, struct board **b, struct error *err) {
    static struct board board;
    script = cfg->cmdline;
    if (strcmp(script, "no memory") == 0)
        return error_set(err, -ENOMEM, "guest memory");
    int ret = machine_init(&the_machine, err);
    the_machine.ops = &machine_ops;
    the_machine.host.vcpus = 1;
    if (ret == 0)
        ret = machine_create_vcpus(&the_machine, &engine, &(struct engine_options){0}, err);
    *b = &board;
    return ret;
}

struct machine *board_machine(struct board *b) {
    return &the_machine;
}
int board_serial_attach(struct board *b, struct chardev *host, struct error *err) {
    serial = host;
    return 0;
}
int board_console_attach(struct board *b, struct chardev *host, struct error *err) {
    return error_set(err, -ENOSPC, "no slot is left");
}
struct block_backend *board_disk(struct board *b, unsigned index) {
    return NULL;
}
int board_new_generation(struct board *b, struct error *err) {
    return 0;
}
struct engine_switch *board_engine_switch(struct board *b) {
    return NULL;
}
void board_power_button(struct board *b) {
    machine_end(&the_machine, MACHINE_POWEROFF);
}
void board_destroy(struct board *b) {
    if (b)
        machine_destroy(&the_machine);
}

// ---- running it ----

static char run_dir[64];

// Runs a VM named "t" to its end and exits with its code. extra: more options, or NULL.
static void run_and_exit(const char *guest, const char *const *extra, const struct run_terminal *term) {
    struct vm_config cfg;
    struct error err = {0};
    const char *args[16] = {"--kernel", "/etc/passwd", "--name", "t", "--cmdline", guest};
    int argc = 6;
    for (; extra && *extra; extra++)
        args[argc++] = *extra;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0});
    config_init(&cfg);
    if (option_parse(&config_options, argc, (char *const *)args, &cfg, &err))
        _exit(99);
    int code = run_vm(&cfg, term, &err);
    if (err.code)
        fprintf(stderr, "%s\n", err.text);
    config_destroy(&cfg);
    exit(code);
}

// Starts it in a child. Its output goes to `out`, its messages to /dev/null.
static pid_t start(const char *guest, const char *const *extra, int out) {
    pid_t pid = fork();
    if (pid)
        return pid;
    dup2(out, 1);
    if (!getenv("CICADA_TEST_VERBOSE"))
        dup2(open("/dev/null", O_WRONLY), 2);
    signal(SIGSYS, SIG_DFL); // cmocka has taken it
    run_and_exit(guest, extra, &(struct run_terminal){0});
    return 0;
}

// Exit code, or -signal; -1000 where it does not end in ten seconds.
static int finish(pid_t pid) {
    int status;
    for (int i = 0; i < 1000; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1000;
}

static int run_guest(const char *guest, const char *const *extra) {
    return finish(start(guest, extra, 2));
}

// Connects to the VM once it is up.
static void connect_to(struct instance *inst, struct control_client *c) {
    struct error err;
    assert_int_equal(instance_locate("t", inst, &err), 0);
    for (int i = 0; i < 500; i++) {
        if (control_client_open(inst, c, &err) == 0)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    fail_msg("%s", err.text);
}

static int tell(struct control_client *c, const char *text) {
    struct error err;
    json_t *result = NULL, *request = json_loads(text, 0, NULL);
    int ret = control_client_call(c, request, 5000, &result, &err);
    json_decref(request);
    json_decref(result);
    return ret;
}

static bool nothing_left(void) {
    char path[128];
    snprintf(path, sizeof(path), "%s/cicada", run_dir);
    return rmdir(path) == 0;
}

static void exit_codes(void **state) {
    static const char *const no_reboot[] = {"--no-reboot", NULL};
    assert_int_equal(run_guest("poweroff", NULL), 0);
    assert_int_equal(run_guest("crash", NULL), 3);
    assert_int_equal(run_guest("reset", no_reboot), 4);
    assert_int_equal(run_guest("debug", NULL), 64 + 0x11);
    assert_int_equal(run_guest("unbootable", NULL), 1);
    assert_int_equal(run_guest("no memory", NULL), 2);
    assert_true(nothing_left());
}

static void debug_exit_codes(void **state) {
    assert_int_equal(run_exit_code(MACHINE_DEBUG_EXIT, 0, 0), 64);
    assert_int_equal(run_exit_code(MACHINE_DEBUG_EXIT, 1, 0), 65);
    assert_int_equal(run_exit_code(MACHINE_DEBUG_EXIT, 63, 0), 127);
    assert_int_equal(run_exit_code(MACHINE_DEBUG_EXIT, 64, 0), 127);
    assert_int_equal(run_exit_code(MACHINE_DEBUG_EXIT, 65, 0), 65);
    assert_int_equal(run_exit_code(MACHINE_DEBUG_EXIT, (int)0xffffffff, 0), 127);
    assert_int_equal(run_exit_code(MACHINE_DEBUG_EXIT, (int)0x80000000, 0), 127);
    assert_int_equal(run_exit_code(MACHINE_KILLED, 0, 0), 130);
    assert_int_equal(run_exit_code(MACHINE_SIGNAL, 0, SIGTERM), 143);
}

static void signals_end_it(void **state) {
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct instance inst;
        struct control_client c;
        pid_t pid = start("wait", NULL, 2);
        connect_to(&inst, &c);
        assert_int_equal(tell(&c, "{\"action\":\"ping\"}"), 0);
        kill(pid, SIGPIPE);
        kill(pid, SIGCONT);
        kill(pid, signals[i]);
        assert_int_equal(finish(pid), 128 + signals[i]);
        control_client_close(&c);
        assert_true(nothing_left());
    }
}

static void control_actions(void **state) {
    struct instance inst;
    struct control_client c;
    pid_t pid = start("wait", NULL, 2);
    connect_to(&inst, &c);
    assert_int_equal(tell(&c, "{\"action\":\"pause\"}"), 0);
    assert_int_equal(tell(&c, "{\"action\":\"info\"}"), 0);
    assert_int_equal(tell(&c, "{\"action\":\"stats\"}"), 0);
    assert_int_equal(tell(&c, "{\"action\":\"resume\"}"), 0);
    assert_int_equal(tell(&c, "{\"action\":\"reset\"}"), 0);
    assert_int_equal(tell(&c, "{\"action\":\"explode\"}"), -EINVAL);
    assert_int_equal(run_guest("wait", NULL), 1); // the name is taken
    assert_int_equal(tell(&c, "{\"action\":\"pause\"}"), 0);
    assert_int_equal(tell(&c, "{\"action\":\"stop\"}"), 0);
    assert_int_equal(control_client_wait_end(&c, 5000), 0);
    assert_int_equal(finish(pid), 0);
    control_client_close(&c);
    pid = start("wait", NULL, 2);
    connect_to(&inst, &c);
    assert_int_equal(tell(&c, "{\"action\":\"stop\",\"how\":\"acpi\"}"), 0);
    assert_int_equal(finish(pid), 0);
    control_client_close(&c);
    assert_true(nothing_left());
}

static void console(void **state) {
    char buf[64] = "";
    int p[2];
    assert_int_equal(pipe(p), 0);
    pid_t pid = start("output", NULL, p[1]);
    close(p[1]);
    assert_int_equal(finish(pid), 0);
    assert_int_equal(read(p[0], buf, sizeof(buf) - 1), 8);
    assert_string_equal(buf, "console\n");
    close(p[0]);
    assert_true(nothing_left());
}

// ---- on a terminal ----

static pid_t start_on_terminal(const char *guest, int *master) {
    pid_t pid = forkpty(master, NULL, NULL, NULL);
    if (pid)
        return pid;
    struct run_terminal term = {.enter = terminal_enter, .leave = terminal_leave, .resumed = terminal_resumed};
    crash_install();
    terminal_examine(&term.interactive, &term.input);
    run_and_exit(guest, NULL, &term);
    return 0;
}

static bool is_raw(int master) {
    struct termios t;
    return tcgetattr(master, &t) == 0 && !(t.c_lflag & (ICANON | ECHO | ISIG));
}

static void wait_raw(int master) {
    for (int i = 0; i < 500 && !is_raw(master); i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_true(is_raw(master));
}

// Reads what the terminal shows until `text` comes, for at most five seconds.
static void expect(int master, const char *text) {
    static char seen[65536];
    size_t len = 0;
    struct pollfd p = {.fd = master, .events = POLLIN};
    while (len < sizeof(seen) - 1 && poll(&p, 1, 5000) > 0) {
        ssize_t n = read(master, seen + len, sizeof(seen) - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
        seen[len] = 0;
        if (strstr(seen, text))
            return;
    }
    fail_msg("no '%s'", text);
}

static void terminal_keys(void **state) {
    int master;
    pid_t pid = start_on_terminal("wait", &master);
    wait_raw(master);
    assert_int_equal(write(master, "\003\032\034", 3), 3); // Ctrl-C, Ctrl-Z and Ctrl-\ are the guest's
    assert_int_equal(write(master, "\001h", 2), 2);
    expect(master, "Ctrl-A x");
    assert_int_equal(write(master, "\001x", 2), 2);
    assert_int_equal(finish(pid), 130);
    assert_false(is_raw(master));
    close(master);
}

static void terminal_restored(void **state) {
    static const struct {
        const char *guest;
        int code;
    } cases[] = {{"crash", 3}, {"unbootable", 1}, {"segfault", -SIGSEGV}, {"abort", -SIGABRT}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int master;
        pid_t pid = start_on_terminal(cases[i].guest, &master);
        assert_int_equal(finish(pid), cases[i].code);
        assert_false(is_raw(master));
        close(master);
    }
    int master;
    pid_t pid = start_on_terminal("wait", &master);
    wait_raw(master);
    kill(pid, SIGTERM);
    assert_int_equal(finish(pid), 143);
    assert_false(is_raw(master));
    close(master);
}

static bool host_has_seccomp(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return false; // seal_syscalls does without
#else
    return prctl(PR_GET_SECCOMP) >= 0;
#endif
}

static void seal(void **state) {
    static const char *const net[] = {"--net", "user", NULL};
    if (!host_has_seccomp()) {
        print_message("no system call filter on this host, or in this build\n");
        skip();
    }
    assert_int_equal(run_guest("open", NULL), 0);
    assert_int_equal(run_guest("library", NULL), 0);
    assert_int_equal(run_guest("exec", NULL), -SIGSYS);
    assert_int_equal(run_guest("wx", NULL), -SIGSYS);
    assert_int_equal(run_guest("kill", NULL), -SIGSYS);
    assert_int_equal(run_guest("capget", NULL), -SIGSYS);
    assert_int_equal(run_guest("socket", NULL), -SIGSYS);
    assert_int_equal(run_guest("socket", net), 0);
    assert_int_equal(run_guest("unixsocket", net), -SIGSYS);
}

// A thread that exists before privileges are dropped loses its capabilities as well, and an inherited descriptor
// is closed.
static void *hold(void *arg) {
    int *p = arg;
    char c;
    if (read(p[0], &c, 1) != 1)
        return (void *)2;
    return any_capability() ? (void *)1 : NULL;
}

static int privileges_child(void) {
    int p[2], extra = open("/dev/null", O_RDONLY);
    struct error err;
    pthread_t thread;
    void *held;
    seal_note_inherited();
    if (pipe(p) != 0 || pthread_create(&thread, NULL, hold, p) != 0 || seal_privileges(&err) != 0)
        return 10;
    if (any_capability())
        return 11;
    if (fcntl(extra, F_GETFD) >= 0 || fcntl(p[0], F_GETFD) < 0)
        return 12;
    if (write(p[1], "x", 1) != 1 || pthread_join(thread, &held) != 0 || held)
        return 13;
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 14;
}

static void privileges(void **state) {
    pid_t pid = fork();
    if (pid == 0)
        _exit(privileges_child());
    assert_int_equal(finish(pid), 0);
}

static int make_run_dir(void **state) {
    strcpy(run_dir, "/tmp/cicada-test-XXXXXX");
    return mkdtemp(run_dir) && setenv("XDG_RUNTIME_DIR", run_dir, 1) == 0 ? 0 : -1;
}

static int remove_run_dir(void **state) {
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", run_dir);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes),        cmocka_unit_test(debug_exit_codes),
        cmocka_unit_test(signals_end_it),    cmocka_unit_test(control_actions),
        cmocka_unit_test(console),           cmocka_unit_test(terminal_keys),
        cmocka_unit_test(terminal_restored), cmocka_unit_test(seal),
        cmocka_unit_test(privileges),
    };
    return cmocka_run_group_tests(tests, make_run_dir, remove_run_dir);
}
