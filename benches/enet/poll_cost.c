/* What a lanline_poll costs: on an empty queue, and with a batch of 64 events. Prints one JSON line. */
#define _GNU_SOURCE
#include <lanline.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BATCH 64
#define EMPTY_POLLS 5000000
#define FULL_BATCHES 2000

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static lanline_node open_node(void)
{
    lanline_node_options options;
    lanline_node node;

    lanline_node_options_init(&options);
    options.app = "bench";
    options.app_len = 5;
    options.bind = "127.0.0.1:0";
    options.bind_len = 11;
    if (lanline_node_create(&options, &node) != LANLINE_OK)
        exit(1);
    return node;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

int main(void)
{
    static lanline_event events[BATCH];
    static double full[FULL_BATCHES];
    lanline_node a = open_node(), b = open_node();
    lanline_address address;
    lanline_node_stats stats;
    lanline_guid guid;
    char data[100] = {0};
    double start, empty;
    int i, round, batches = 0;

    start = now_ns();
    for (i = 0; i < EMPTY_POLLS; i++)
        lanline_poll(a, events, (uint32_t)sizeof events[0], BATCH);
    empty = (now_ns() - start) / EMPTY_POLLS;

    lanline_node_guid(b, &guid);
    lanline_node_address(b, &address);
    lanline_peer_connect(a, guid, &address, NULL);
    lanline_wait(a, 5000);
    lanline_wait(b, 5000);
    lanline_poll(a, events, (uint32_t)sizeof events[0], BATCH);
    lanline_poll(b, events, (uint32_t)sizeof events[0], BATCH);
    for (round = 0; round < FULL_BATCHES; round++) {
        for (i = 0; i < BATCH; i++)
            lanline_send(a, guid, 0, LANLINE_SEND_RELIABLE_ORDERED, data, sizeof data);
        /* Until the whole batch waits; at most a second. */
        for (i = 0; i < 1000; i++) {
            lanline_node_stats_init(&stats);
            if (lanline_node_stats_get(b, &stats) < 0 || stats.events_pending >= BATCH)
                break;
            lanline_wait(b, 1);
        }
        start = now_ns();
        if (lanline_poll(b, events, (uint32_t)sizeof events[0], BATCH) == BATCH)
            full[batches++] = now_ns() - start;
    }
    qsort(full, (size_t)batches, sizeof full[0], compare);
    printf("{\"empty_poll_ns\":%.1f,\"full_poll_ns_per_event\":%.1f,\"full_batches\":%d}\n", empty,
           batches ? full[batches / 2] / BATCH : 0.0, batches);
    lanline_node_destroy(a, 100);
    lanline_node_destroy(b, 100);
    return 0;
}
