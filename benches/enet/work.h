/* The same work for two libraries: work.c asks for it through these calls, enet_peer.c and lanline_peer.c carry it out. */
#ifndef LANLINE_BENCH_WORK_H
#define LANLINE_BENCH_WORK_H

#include <stddef.h>
#include <stdint.h>

/* Called for every message that came in. */
typedef void (*net_handler)(const void *data, size_t len);

/* Opens a node on a loopback port of the system's choice, and gives that port. */
uint16_t net_listen(void);
/* Opens a node and connects to that port; returns when connected. */
void net_connect(uint16_t port);
/* Hands over a message; 0: queues are full, try again after net_receive. */
int net_send(int reliable, const void *data, size_t len);
/* Handles what there is, waiting up to `timeout_ms` for the first. Messages handled, or -1 if the other side is gone. */
int net_receive(int timeout_ms, net_handler handler);
/* What was sent leaves now. */
void net_flush(void);
/* Queues were full: a pause until it makes sense to try again. */
void net_blocked(net_handler handler);
void net_close(void);

/* Prints what is wrong and ends the program. */
void bench_fail(const char *what);
/* Microseconds that never go backwards. */
uint64_t bench_now_us(void);

#endif
