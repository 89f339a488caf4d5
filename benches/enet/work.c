/* PROGRAM receive · PROGRAM send PORT flood|paced SECONDS SIZE unreliable|reliable · PROGRAM send PORT ping spin|frames|block COUNT
 *
 * One process receives and answers, the other sends. Each prints one JSON line about itself at its end. CPU time is that of the
 * whole process, all threads, from the first message to the last.
 */
#define _GNU_SOURCE
#include "work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define MESSAGE_MAX 65536
#define PING_SIZE 64
#define FRAME_US (1000000 / 60)
#define PACED_PER_SECOND 50000
#define PACED_TICK_US 1000
/* Sent between two looks at what came in. */
#define BATCH 64
/* A run that hangs is broken. */
#define PATIENCE_US 30000000

/* First byte of a message. */
enum { KIND_DATA = 'D', KIND_PING = 'P', KIND_PONG = 'Q', KIND_END = 'E', KIND_DONE = 'F', KIND_MODE = 'M' };
/* How a side waits for messages while pinging. */
enum { WAIT_SPIN = 's', WAIT_FRAMES = 'f', WAIT_BLOCK = 'b' };

static unsigned char buffer[MESSAGE_MAX];
static uint64_t delivered, delivered_bytes, first_us, last_us;
static double first_cpu;
static int pong, done, ended, mode = WAIT_BLOCK;

void bench_fail(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

uint64_t bench_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static double cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void sleep_until(uint64_t us)
{
    struct timespec at;

    at.tv_sec = (time_t)(us / 1000000);
    at.tv_nsec = (long)(us % 1000000) * 1000;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void must_send(const void *data, size_t len);

static void handle(const void *data, size_t len)
{
    unsigned char answer[PING_SIZE];

    switch (*(const unsigned char *)data) {
    case KIND_DATA:
        if (!delivered) {
            first_us = bench_now_us();
            first_cpu = cpu_seconds();
        }
        delivered++;
        delivered_bytes += len;
        break;
    case KIND_PING:
        memcpy(answer, data, PING_SIZE);
        answer[0] = KIND_PONG;
        must_send(answer, PING_SIZE);
        break;
    case KIND_MODE: mode = ((const unsigned char *)data)[1]; break;
    case KIND_PONG: pong = 1; break;
    case KIND_END: ended = 1; break;
    case KIND_DONE: done = 1; break;
    default: bench_fail("a message of no kind");
    }
}

static void must_send(const void *data, size_t len)
{
    while (!net_send(1, data, len))
        net_blocked(handle);
}

static int receive_in_mode(uint64_t *frame)
{
    if (mode == WAIT_BLOCK)
        return net_receive(10, handle);
    if (mode == WAIT_FRAMES) {
        if (!*frame)
            *frame = bench_now_us();
        *frame += FRAME_US;
        sleep_until(*frame);
    }
    return net_receive(0, handle);
}

static void receive(void)
{
    uint64_t frame = 0, counted = 0;
    double cpu;

    printf("{\"port\":%u}\n", (unsigned)net_listen());
    fflush(stdout);
    while (!ended) {
        if (receive_in_mode(&frame) < 0)
            bench_fail("the sender is gone");
        net_flush();
        if (delivered != counted) {
            counted = delivered;
            last_us = bench_now_us();
        }
    }
    /* Unreliable messages may still be on the way behind the end. */
    while (net_receive(100, handle) > 0)
        last_us = bench_now_us();
    cpu = cpu_seconds() - first_cpu;
    mode = WAIT_BLOCK;
    buffer[0] = KIND_DONE;
    must_send(buffer, 1);
    net_flush();
    printf("{\"role\":\"receiver\",\"delivered\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"cpu\":%.6f}\n",
           (unsigned long long)delivered, (unsigned long long)delivered_bytes, (double)(last_us - first_us) / 1e6, cpu);
    /* Until the sender closes. */
    while (net_receive(100, handle) >= 0)
        ;
}

static void await(int *what)
{
    uint64_t deadline = bench_now_us() + PATIENCE_US;

    while (!*what) {
        if (net_receive(1, handle) < 0 || bench_now_us() > deadline)
            bench_fail("the receiver does not answer");
    }
}

static void finish(uint64_t sent, uint64_t start, double cpu)
{
    double seconds = (double)(bench_now_us() - start) / 1e6;

    buffer[0] = KIND_END;
    must_send(buffer, 1);
    net_flush();
    await(&done);
    printf("{\"role\":\"sender\",\"sent\":%llu,\"seconds\":%.6f,\"cpu\":%.6f}\n", (unsigned long long)sent, seconds,
           cpu_seconds() - cpu);
}

/* As fast as the library takes it. */
static void flood(double seconds, size_t size, int reliable)
{
    uint64_t start = bench_now_us(), end = start + (uint64_t)(seconds * 1e6), sent = 0;
    double cpu = cpu_seconds();
    int i, full;

    while (bench_now_us() < end) {
        for (i = 0, full = 0; i < BATCH && !full; i++) {
            full = !net_send(reliable, buffer, size);
            sent += !full;
        }
        if (full)
            net_blocked(handle);
        else
            net_receive(0, handle);
    }
    finish(sent, start, cpu);
}

/* A fixed rate, in ticks of a millisecond. */
static void paced(double seconds, size_t size, int reliable)
{
    uint64_t start = bench_now_us(), sent = 0, ticks = (uint64_t)(seconds * 1e6) / PACED_TICK_US, tick;
    uint64_t per_tick = (uint64_t)PACED_PER_SECOND * PACED_TICK_US / 1000000, i;
    double cpu = cpu_seconds();

    for (tick = 0; tick < ticks; tick++) {
        for (i = 0; i < per_tick; i++)
            sent += (uint64_t)net_send(reliable, buffer, size);
        net_flush();
        sleep_until(start + (tick + 1) * PACED_TICK_US);
        net_receive(0, handle);
    }
    finish(sent, start, cpu);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void ping(int how, size_t count)
{
    uint64_t *times = (uint64_t *)calloc(count, sizeof *times), frame = 0, start, deadline = bench_now_us() + PATIENCE_US;
    size_t i;

    if (!times || !count)
        bench_fail("no rounds");
    mode = how;
    buffer[0] = KIND_MODE;
    buffer[1] = (unsigned char)how;
    must_send(buffer, 2);
    net_flush();
    for (i = 0; i < count; i++) {
        pong = 0;
        buffer[0] = KIND_PING;
        start = bench_now_us();
        must_send(buffer, PING_SIZE);
        net_flush();
        while (!pong)
            if (receive_in_mode(&frame) < 0 || bench_now_us() > deadline)
                bench_fail("no pong");
        times[i] = bench_now_us() - start;
    }
    qsort(times, count, sizeof *times, compare);
    printf("{\"role\":\"sender\",\"p50_us\":%llu,\"p99_us\":%llu}\n", (unsigned long long)times[count / 2],
           (unsigned long long)times[count * 99 / 100]);
    buffer[0] = KIND_END;
    must_send(buffer, 1);
    net_flush();
    await(&done);
    free(times);
}

int main(int argc, char **argv)
{
    memset(buffer, 'x', sizeof buffer);
    if (argc == 2 && !strcmp(argv[1], "receive")) {
        receive();
    } else if (argc >= 6 && !strcmp(argv[1], "send")) {
        net_connect((uint16_t)atoi(argv[2]));
        buffer[0] = KIND_DATA;
        if (!strcmp(argv[3], "ping"))
            ping(argv[4][0], (size_t)atol(argv[5]));
        else if (argc == 7 && !strcmp(argv[3], "flood"))
            flood(atof(argv[4]), (size_t)atol(argv[5]), !strcmp(argv[6], "reliable"));
        else if (argc == 7 && !strcmp(argv[3], "paced"))
            paced(atof(argv[4]), (size_t)atol(argv[5]), !strcmp(argv[6], "reliable"));
        else
            bench_fail("no such work");
    } else {
        bench_fail("usage: see work.c");
    }
    net_close();
    return 0;
}
