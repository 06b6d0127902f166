// SPDX-License-Identifier: Apache-2.0
// Control requests: the parser against garbage, and the server on a real event loop against rude clients.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/control.h"

#define LEN(a) (sizeof(a) / sizeof((a)[0]))

// ---- parsing ----

static int parse(const char *line, struct control_action *a, struct error *err) {
    json_t *id = NULL;
    *err = (struct error){0};
    int ret = control_parse(line, strlen(line), a, &id, err);
    json_decref(id);
    return ret;
}

static void good_requests(void **state) {
    static const struct {
        const char *line;
        enum control_verb verb;
    } cases[] = {
        {"{\"action\":\"ping\"}", CONTROL_PING},   {"{\"action\":\"info\",\"id\":1}", CONTROL_INFO},
        {"{\"action\":\"stats\"}", CONTROL_STATS}, {" {\"id\":\"x\", \"action\":\"pause\"} ", CONTROL_PAUSE},
        {"{\"action\":\"stop\"}", CONTROL_STOP},   {"{\"action\":\"res\\u0075me\"}", CONTROL_RESUME},
        {"{\"action\":\"reset\"}", CONTROL_RESET},
    };
    struct control_action a;
    struct error err;
    for (size_t i = 0; i < LEN(cases); i++) {
        assert_int_equal(parse(cases[i].line, &a, &err), 0);
        assert_int_equal(a.verb, cases[i].verb);
    }
    assert_int_equal(parse("{\"action\":\"stop\",\"how\":\"acpi\"}", &a, &err), 0);
    assert_int_equal(a.stop.how, CONTROL_STOP_ACPI);
    assert_int_equal(parse("{\"action\":\"stop\",\"how\":\"now\"}", &a, &err), 0);
    assert_int_equal(a.stop.how, CONTROL_STOP_NOW);
}

static void bad_requests(void **state) {
    static const char *const lines[] = {
        "",
        "{",
        "}",
        "[]",
        "null",
        "17",
        "\"stop\"",
        "stop",
        "{}",
        "{\"action\":1}",
        "{\"action\":null}",
        "{\"action\":\"\"}",
        "{\"action\":\"quit\"}",
        "{\"action\":\"STOP\"}",
        "{\"action\":\"stop\",\"how\":\"hard\"}",
        "{\"action\":\"stop\",\"how\":1}",
        "{\"action\":\"ping\",\"how\":\"now\"}",
        "{\"action\":\"stop\",\"hwo\":\"acpi\"}",
        "{\"action\":\"stop\",\"action\":\"ping\"}",
        "{\"action\":\"stop\"} x",
        "{\"action\":\"stop\"}{}",
        "{\"action\":\"ping\",\"id\":{}}",
        "{\"action\":\"ping\",\"id\":1.5}",
        "{\"action\":\"ping\",\"id\":99999999999999999999}",
        "{\"action\":\"st\\u0000op\"}",
        "{\"action\":\"\xff\xfe\"}",
        "\x01\x02\x03",
        "{'action':'ping'}",
    };
    struct control_action a;
    struct error err;
    for (size_t i = 0; i < LEN(lines); i++)
        if (parse(lines[i], &a, &err) != -EINVAL || !err.text[0])
            fail_msg("accepted: %s", lines[i]);
    assert_int_equal(parse("{\"action\":\"puase\"}", &a, &err), -EINVAL);
    assert_non_null(strstr(err.text, "'pause'"));
}

static void deep_and_binary(void **state) {
    char *deep = malloc(60000);
    struct control_action a;
    struct error err;
    memset(deep, '[', 59999);
    deep[59999] = 0;
    assert_int_equal(parse(deep, &a, &err), -EINVAL);
    json_t *id;
    for (int i = 0; i < 59999; i++)
        deep[i] = (char)(i * 7919);
    assert_int_equal(control_parse(deep, 59999, &a, &id, &err), -EINVAL);
    free(deep);
}

// An answer is always one line of valid JSON, whatever was asked.
static void answers(void **state) {
    static const char *const lines[] = {
        "{\"action\":\"ping\",\"id\":\"\\u00e4\\n\"}", "{\"action\":\"\xc3", "x\ny", "",
        "{\"action\":\"\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4"
        "\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4\\u00e4x\\u00e4\\u00e4\\u00e4\"}"};
    for (size_t i = 0; i < LEN(lines); i++) {
        char *answer = control_answer(NULL, NULL, lines[i], strlen(lines[i]));
        assert_non_null(answer);
        assert_ptr_equal(strchr(answer, '\n'), answer + strlen(answer) - 1);
        json_t *root = json_loads(answer, 0, NULL);
        assert_true(json_is_object(root));
        assert_int_equal(json_is_true(json_object_get(root, "ok")), i == 0);
        if (i == 0)
            assert_string_equal(json_string_value(json_object_get(root, "id")), "\xc3\xa4\n");
        json_decref(root);
        free(answer);
    }
}

// ---- instances ----

static char run_dir[64];

static int make_run_dir(void **state) {
    strcpy(run_dir, "/tmp/cicada-test-XXXXXX");
    return mkdtemp(run_dir) && setenv("XDG_RUNTIME_DIR", run_dir, 1) == 0 ? 0 : -1;
}

static int remove_run_dir(void **state) {
    char path[128];
    snprintf(path, sizeof(path), "%s/cicada", run_dir);
    rmdir(path);
    return rmdir(run_dir);
}

static int count_instance(void *ctx, const struct instance *inst, pid_t pid) {
    ++*(int *)ctx;
    assert_int_equal(pid, getpid());
    return 0;
}

static int count_instances(void) {
    struct error err;
    int n = 0;
    assert_int_equal(instance_list(count_instance, &n, &err), 0);
    return n;
}

static void names_are_unique(void **state) {
    struct instance a, b;
    struct error err = {0};
    struct stat st;
    assert_int_equal(count_instances(), 0);
    assert_int_equal(instance_claim("one", &a, &err), 0);
    assert_int_equal(stat(a.dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_true(instance_claim("one", &b, &err) < 0);
    assert_non_null(strstr(err.text, "'one' is taken"));
    assert_int_equal(instance_claim("two", &b, &err), 0);
    assert_int_equal(count_instances(), 2);
    assert_int_equal(instance_check(&a), getpid());
    instance_release(&a);
    assert_int_equal(stat(a.dir, &st), -1);
    assert_int_equal(instance_check(&a), -ENOENT);
    assert_int_equal(count_instances(), 1);
    assert_int_equal(instance_claim("one", &a, &err), 0);
    instance_release(&a);
    instance_release(&b);
    assert_int_equal(count_instances(), 0);
    assert_true(instance_claim("../up", &a, &err) < 0);
}

// A VM that was killed leaves its directory; it neither shows up nor takes the name.
static void stale_directories(void **state) {
    struct instance inst;
    struct error err;
    struct stat st;
    pid_t pid = fork();
    if (pid == 0)
        _exit(instance_claim("dead", &inst, &err) == 0 ? 0 : 1);
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(instance_locate("dead", &inst, &err), 0);
    assert_int_equal(stat(inst.dir, &st), 0);
    assert_int_equal(count_instances(), 0);
    assert_int_equal(stat(inst.dir, &st), -1);
}

static void hostile_run_directory(void **state) {
    struct instance inst;
    struct error err = {0};
    char path[256];
    snprintf(path, sizeof(path), "%s/cicada", run_dir);
    mkdir(path, 0700);
    assert_int_equal(chmod(path, 0777), 0);
    assert_true(instance_claim("x", &inst, &err) < 0);
    assert_non_null(strstr(err.text, "run directory"));
    assert_int_equal(chmod(path, 0700), 0);
    char link[512];
    snprintf(link, sizeof(link), "%s/x", path);
    assert_int_equal(symlink("/tmp", link), 0);
    assert_true(instance_claim("x", &inst, &err) < 0);
    unlink(link);
}

// ---- server ----

struct fixture {
    struct machine machine;
    struct vm_config config;
    struct control_target target;
    struct instance inst;
    struct control_server *server;
    pthread_t thread;
    int pressed;
};

static void press(void *ctx) {
    ((struct fixture *)ctx)->pressed++;
}

static void *loop_thread(void *ctx) {
    event_loop_run(((struct fixture *)ctx)->machine.loop);
    return NULL;
}

static void fixture_start(struct fixture *f) {
    struct error err = {0};
    *f = (struct fixture){0};
    assert_int_equal(machine_init(&f->machine, &err), 0);
    config_init(&f->config);
    f->config.name = strdup("test");
    f->config.kernel = strdup("k");
    f->target = (struct control_target){.machine = &f->machine, .config = &f->config, .power_button = press, .ctx = f};
    assert_int_equal(instance_claim("test", &f->inst, &err), 0);
    assert_int_equal(control_server_create(f->machine.loop, &f->inst, &f->target, &f->server, &err), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, loop_thread, f), 0);
}

static void fixture_stop(struct fixture *f) {
    event_loop_quit(f->machine.loop, 0);
    pthread_join(f->thread, NULL);
    control_server_destroy(f->server);
    machine_destroy(&f->machine);
    instance_release(&f->inst);
    config_destroy(&f->config);
}

static int call(struct control_client *c, const char *action, const char *how, json_t **result, struct error *err) {
    json_t *request = json_pack("{s:s, s:s*}", "action", action, "how", how);
    int ret = control_client_call(c, request, 5000, result, err);
    json_decref(request);
    return ret;
}

static void requests_over_the_socket(void **state) {
    struct fixture f;
    struct control_client c;
    struct error err = {0};
    json_t *result = NULL;
    fixture_start(&f);
    assert_int_equal(control_client_open(&f.inst, &c, &err), 0);
    assert_int_equal(call(&c, "ping", NULL, &result, &err), 0);
    assert_true(json_is_null(result));
    assert_int_equal(call(&c, "info", NULL, &result, &err), 0);
    assert_string_equal(json_string_value(json_object_get(result, "name")), "test");
    assert_string_equal(json_string_value(json_object_get(result, "state")), "running");
    assert_int_equal(json_integer_value(json_object_get(result, "memory")), 512 << 20);
    json_decref(result);
    assert_int_equal(call(&c, "pause", NULL, &result, &err), 0);
    assert_int_equal(call(&c, "pause", NULL, &result, &err), 0); // a switch, it does not nest
    assert_int_equal(call(&c, "info", NULL, &result, &err), 0);
    assert_string_equal(json_string_value(json_object_get(result, "state")), "paused");
    json_decref(result);
    assert_int_equal(call(&c, "resume", NULL, &result, &err), 0);
    assert_int_equal(call(&c, "stats", NULL, &result, &err), 0);
    assert_true(json_is_object(json_object_get(result, "engine")));
    json_decref(result);
    assert_int_equal(call(&c, "dance", NULL, &result, &err), -EINVAL);
    assert_non_null(strstr(err.text, "dance"));
    assert_int_equal(call(&c, "stop", "acpi", &result, &err), 0);
    assert_int_equal(f.pressed, 1);
    assert_int_equal(atomic_load(&f.machine.end), MACHINE_RUNNING);
    assert_int_equal(call(&c, "stop", NULL, &result, &err), 0);
    assert_int_equal(atomic_load(&f.machine.end), MACHINE_STOPPED);
    control_client_close(&c);
    fixture_stop(&f);
}

static size_t read_all(int fd, char *buf, size_t size) {
    size_t len = 0;
    ssize_t n;
    while (len < size && (n = recv(fd, buf + len, size - len, 0)) > 0)
        len += (size_t)n;
    return len;
}

static int raw_client(struct fixture *f) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&f->inst.addr, sizeof(f->inst.addr)), 0);
    return fd;
}

static void rude_clients(void **state) {
    struct fixture f;
    static char big[200000], answer[4096];
    fixture_start(&f);
    // A line without an end: one error, then the connection is closed.
    int fd = raw_client(&f);
    memset(big, 'x', sizeof(big));
    for (size_t sent = 0; sent < sizeof(big);) {
        ssize_t n = send(fd, big + sent, sizeof(big) - sent, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        sent += (size_t)n;
    }
    size_t len = read_all(fd, answer, sizeof(answer) - 1);
    answer[len] = 0;
    if (len) // the close may have thrown the answer away with the rest of the line
        assert_non_null(strstr(answer, "too long"));
    close(fd);
    // Many requests in one write, an empty line, a carriage return; then half a request and gone.
    fd = raw_client(&f);
    static const char many[] = "{\"action\":\"ping\",\"id\":1}\n\n{\"action\":\"ping\",\"id\":2}\r\nrubbish\n{\"acti";
    assert_int_equal(write(fd, many, sizeof(many) - 1), sizeof(many) - 1);
    shutdown(fd, SHUT_WR);
    len = read_all(fd, answer, sizeof(answer) - 1);
    answer[len] = 0;
    assert_non_null(strstr(answer, "{\"ok\":true,\"id\":1}\n{\"ok\":true,\"id\":2}\n{\"ok\":false,"));
    close(fd);
    // More clients than there are places, none of which says anything.
    int fds[CONTROL_CLIENTS_MAX + 4];
    for (size_t i = 0; i < LEN(fds); i++)
        fds[i] = raw_client(&f);
    len = read_all(fds[CONTROL_CLIENTS_MAX], answer, sizeof(answer) - 1);
    answer[len] = 0;
    assert_non_null(strstr(answer, "too many clients"));
    for (size_t i = 0; i < LEN(fds); i++)
        close(fds[i]);
    assert_int_equal(atomic_load(&f.machine.end), MACHINE_RUNNING);
    fixture_stop(&f);
}

// A client that asks for a lot and reads nothing holds only itself up.
static void client_that_does_not_read(void **state) {
    struct fixture f;
    struct control_client c;
    struct error err = {0};
    json_t *result;
    static const char line[] = "{\"action\":\"info\"}\n";
    fixture_start(&f);
    int fd = raw_client(&f);
    size_t asked = 0;
    while (send(fd, line, sizeof(line) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(line) - 1 && asked < 1000000)
        asked++;
    assert_in_range(asked, 100, 999999);
    assert_int_equal(control_client_open(&f.inst, &c, &err), 0);
    assert_int_equal(call(&c, "ping", NULL, &result, &err), 0);
    control_client_close(&c);
    close(fd);
    fixture_stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_requests),
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(deep_and_binary),
        cmocka_unit_test(answers),
        cmocka_unit_test_setup_teardown(names_are_unique, make_run_dir, remove_run_dir),
        cmocka_unit_test_setup_teardown(stale_directories, make_run_dir, remove_run_dir),
        cmocka_unit_test_setup_teardown(hostile_run_directory, make_run_dir, remove_run_dir),
        cmocka_unit_test_setup_teardown(requests_over_the_socket, make_run_dir, remove_run_dir),
        cmocka_unit_test_setup_teardown(rude_clients, make_run_dir, remove_run_dir),
        cmocka_unit_test_setup_teardown(client_that_does_not_read, make_run_dir, remove_run_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
