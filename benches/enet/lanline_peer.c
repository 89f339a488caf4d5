/* The work through Lanline's C ABI, both sides: connected by address, without a server. */
#define _GNU_SOURCE
#include "work.h"

#include <lanline.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

#define EVENTS 256
/* Queues are full: the library's thread empties them meanwhile. */
#define BLOCKED_NS 100000

static lanline_node node;
static lanline_guid peer;
static int gone;

static void open_node(void)
{
    lanline_node_options options;
    char why[256] = "";

    lanline_node_options_init(&options);
    options.app = "bench";
    options.app_len = 5;
    options.bind = "127.0.0.1:0";
    options.bind_len = 11;
    if (lanline_node_create(&options, &node) != LANLINE_OK) {
        lanline_last_error(why, sizeof why);
        bench_fail(why);
    }
}

uint16_t net_listen(void)
{
    lanline_address address;

    open_node();
    if (lanline_node_address(node, &address) != LANLINE_OK)
        bench_fail("no address");
    return address.port;
}

static int take(const lanline_event *event, net_handler handler)
{
    switch (event->type) {
    case LANLINE_EVENT_MESSAGE:
        handler((const void *)event->data, event->data_len);
        return 1;
    case LANLINE_EVENT_CONNECTED:
        peer = event->peer;
        return 0;
    case LANLINE_EVENT_DISCONNECTED:
    case LANLINE_EVENT_CONNECTION_FAILED:
    case LANLINE_EVENT_FATAL:
        gone = 1;
        return 0;
    default:
        return 0;
    }
}

int net_receive(int timeout_ms, net_handler handler)
{
    static lanline_event events[EVENTS];
    int32_t count, i;
    int handled = 0;

    if (timeout_ms > 0)
        lanline_wait(node, (uint32_t)timeout_ms);
    do {
        count = lanline_poll(node, events, (uint32_t)sizeof events[0], EVENTS);
        for (i = 0; i < count; i++)
            handled += take(&events[i], handler);
    } while (count == EVENTS);
    return gone ? -1 : handled;
}

void net_connect(uint16_t port)
{
    char text[32];
    lanline_address address;
    uint64_t deadline = bench_now_us() + 5000000;

    open_node();
    snprintf(text, sizeof text, "127.0.0.1:%u", (unsigned)port);
    if (lanline_address_parse(text, (uint32_t)strlen(text), &address) < 0 ||
        lanline_peer_connect(node, 0, &address, NULL) < 0)
        bench_fail("cannot connect");
    while (!peer && !gone && bench_now_us() < deadline)
        net_receive(100, NULL);
    if (!peer)
        bench_fail("not connected");
}

int net_send(int reliable, const void *data, size_t len)
{
    int32_t code = lanline_send(node, peer, 0, reliable ? LANLINE_SEND_RELIABLE_ORDERED : LANLINE_SEND_UNRELIABLE, data,
                                (uint32_t)len);

    if (code < 0 && code != LANLINE_QUEUE_FULL)
        bench_fail(lanline_result_name(code));
    return code >= 0;
}

void net_flush(void)
{
    /* The library's own thread sends. */
}

void net_blocked(net_handler handler)
{
    struct timespec pause = {0, BLOCKED_NS};

    nanosleep(&pause, NULL);
    net_receive(0, handler);
}

void net_close(void)
{
    lanline_node_destroy(node, 1000);
}
