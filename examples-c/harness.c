/* lanline-harness [key=value]…: a node driven by lines of text.
 *
 * Commands come in on standard input, one a line: a verb and `key=value` pairs (a value may be in double quotes,
 * JSON-escaped). Results and events go out on standard output, one JSON object a line. `quit`, or the end of the input,
 * destroys the node and ends the program with 0. Written against the public header alone, without threads.
 */
#define _POSIX_C_SOURCE 200809L
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long a command waits at most before it is read: short enough to feel immediate, long enough to cost nothing. */
#define INPUT_SLICE_MS 5
/* Bound of the destroy at the end. */
#define DESTROY_TIMEOUT_MS 2000

uint64_t harness_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void harness_wait(struct harness *harness, uint32_t timeout_ms)
{
    if (lanline_wait(harness->node, timeout_ms) < 0)
        poll(NULL, 0, timeout_ms < INPUT_SLICE_MS ? (int)timeout_ms : INPUT_SLICE_MS);
}

int harness_number(const struct argument *argument, uint64_t max, uint64_t *out)
{
    uint64_t value = 0, digit;
    size_t i;

    if (!argument->len)
        return 0;
    for (i = 0; i < argument->len; i++) {
        if (argument->value[i] < '0' || argument->value[i] > '9')
            return 0;
        digit = (uint64_t)(argument->value[i] - '0');
        if (digit > max || value > (max - digit) / 10)
            return 0;
        value = value * 10 + digit;
    }
    *out = value;
    return 1;
}

int harness_choice(const struct argument *argument, const char *const *names)
{
    int i;

    for (i = 0; names[i]; i++)
        if (strlen(names[i]) == argument->len && !memcmp(names[i], argument->value, argument->len))
            return i;
    return -1;
}

static void fail(const char *what, const char *detail)
{
    fprintf(stderr, "lanline-harness: %s%s%s\n", what, *detail ? ": " : "", detail);
    exit(2);
}

static void set_text(const struct argument *argument, const char **out, uint32_t *out_len)
{
    *out = argument->value;
    *out_len = (uint32_t)argument->len;
}

static uint32_t number_setting(const struct argument *argument)
{
    uint64_t value;

    if (!harness_number(argument, UINT32_MAX, &value))
        fail("this setting wants a number", argument->key);
    return (uint32_t)value;
}

static uint8_t choice_setting(const struct argument *argument, const char *const *names)
{
    int index = harness_choice(argument, names);

    if (index < 0)
        fail("this setting has no such value", argument->key);
    return (uint8_t)index;
}

static void apply_setting(lanline_node_options *options, const struct argument *argument)
{
    /* In the order of the header's numbers. */
    static const char *const accept[] = {"app", "session", "nobody", NULL};
    static const char *const join[] = {"auto", "manual", NULL};
    static const char *const partial[] = {"0", "1", NULL};
    const char *key = argument->key;

    if (!strcmp(key, "app"))
        set_text(argument, &options->app, &options->app_len);
    else if (!strcmp(key, "bind"))
        set_text(argument, &options->bind, &options->bind_len);
    else if (!strcmp(key, "identity"))
        set_text(argument, &options->identity_file, &options->identity_file_len);
    else if (!strcmp(key, "public"))
        set_text(argument, &options->public_address, &options->public_address_len);
    else if (!strcmp(key, "access_key"))
        set_text(argument, &options->access_key, &options->access_key_len);
    else if (!strcmp(key, "session_password"))
        set_text(argument, &options->session_password, &options->session_password_len);
    else if (!strcmp(key, "relay"))
        options->relay_policy = choice_setting(argument, harness_relay_policies);
    else if (!strcmp(key, "accept_from"))
        options->accept_from = choice_setting(argument, accept);
    else if (!strcmp(key, "join"))
        options->join_manual = choice_setting(argument, join);
    else if (!strcmp(key, "partial"))
        options->partial_mesh = choice_setting(argument, partial);
    else if (!strcmp(key, "router_max"))
        options->router_max = number_setting(argument);
    else if (!strcmp(key, "max_peers"))
        options->max_peers = number_setting(argument);
    else if (!strcmp(key, "timeout_ms"))
        options->lost_peer_timeout_ms = number_setting(argument);
    else if (!strcmp(key, "join_timeout_ms"))
        options->join_timeout_ms = number_setting(argument);
    else
        fail("there is no such setting", key);
}

static void create_node(struct harness *harness, int count, char **settings)
{
    lanline_node_options options;
    struct argument argument;
    char error[512];
    char *equals;
    int32_t code;
    int i;

    lanline_node_options_init(&options);
    options.app = "lanline-harness";
    options.app_len = (uint32_t)strlen(options.app);
    for (i = 0; i < count; i++) {
        equals = strchr(settings[i], '=');
        if (!equals)
            fail("a setting is not of the form key=value", settings[i]);
        *equals = 0;
        memset(&argument, 0, sizeof argument);
        argument.key = settings[i];
        argument.value = equals + 1;
        argument.len = strlen(equals + 1);
        apply_setting(&options, &argument);
    }
    code = lanline_node_create(&options, &harness->node);
    if (code < 0) {
        error[0] = 0;
        lanline_last_error(error, sizeof error);
        fail(lanline_result_name(code), error);
    }
}

static void print_ready(struct harness *harness)
{
    uint8_t key[32];
    int i;

    memset(key, 0, sizeof key);
    lanline_node_guid(harness->node, &harness->guid);
    lanline_node_key(harness->node, key);
    text_clear(&harness->line);
    text_add(&harness->line, "{\"event\":\"READY\"");
    json_key_id(&harness->line, "guid", harness->guid);
    text_add(&harness->line, ",\"key\":\"");
    for (i = 0; i < 32; i++)
        text_format(&harness->line, "%02x", key[i]);
    text_add(&harness->line, "\"}");
    harness_print(harness);
}

/* Standard input, cut into lines. */
struct input {
    char buffer[HARNESS_MAX_LINE + 2];
    size_t filled;
    int too_long; /* Inside a line that is longer than allowed: its rest is thrown away. */
    int ended;
};

static void run_lines(struct harness *harness, struct input *input)
{
    char *start = input->buffer, *end = input->buffer + input->filled, *newline;

    while (!harness->quit && (newline = (char *)memchr(start, '\n', (size_t)(end - start))) != NULL) {
        if (input->too_long)
            input->too_long = 0;
        else
            harness_command(harness, start, (size_t)(newline - start));
        start = newline + 1;
        harness_drain_events(harness);
    }
    input->filled = (size_t)(end - start);
    memmove(input->buffer, start, input->filled);
    if (input->filled > HARNESS_MAX_LINE) {
        if (!input->too_long)
            harness_refuse(harness, "", LANLINE_TOO_LARGE, "a command line is longer than 262144 bytes");
        input->too_long = 1;
        input->filled = 0;
    }
}

/* Reads what there is without waiting. */
static void read_input(struct harness *harness, struct input *input)
{
    struct pollfd descriptor;
    ssize_t got;

    descriptor.fd = STDIN_FILENO;
    descriptor.events = POLLIN;
    descriptor.revents = 0;
    if (poll(&descriptor, 1, 0) <= 0)
        return;
    got = read(STDIN_FILENO, input->buffer + input->filled, sizeof input->buffer - 1 - input->filled);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got <= 0) {
        input->ended = 1;
        /* A last line without a newline counts. */
        if (input->filled && !input->too_long)
            harness_command(harness, input->buffer, input->filled);
        return;
    }
    input->filled += (size_t)got;
    run_lines(harness, input);
}

int main(int argc, char **argv)
{
    struct harness harness;
    struct input *input = (struct input *)calloc(1, sizeof *input);

    memset(&harness, 0, sizeof harness);
    harness.messages.events = (struct remembered_event *)calloc(HARNESS_REMEMBERED, sizeof(struct remembered_event));
    harness.others.events = (struct remembered_event *)calloc(HARNESS_REMEMBERED, sizeof(struct remembered_event));
    if (!input || !harness.messages.events || !harness.others.events)
        fail("out of memory", "");
    if (lanline_abi_version() != LANLINE_ABI_VERSION)
        fail("the library's ABI version is not the one of the header", "");
    create_node(&harness, argc - 1, argv + 1);
    print_ready(&harness);
    while (!harness.quit && !input->ended) {
        harness_drain_events(&harness);
        read_input(&harness, input);
        if (!harness.quit && !input->ended)
            harness_wait(&harness, INPUT_SLICE_MS);
    }
    harness_drain_events(&harness);
    lanline_node_destroy(harness.node, DESTROY_TIMEOUT_MS);
    text_free(&harness.line);
    free(harness.messages.events);
    free(harness.others.events);
    free(input);
    return 0;
}
