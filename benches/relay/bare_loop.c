/* The least that a program can do to pass datagrams on: recvmmsg, another destination, sendmmsg. No look-up, no check, nothing counted.
   bare_loop PORT: prints its own port, then forwards to 127.2.0.1 … 127.2.0.64 at PORT in turn, until it is killed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, DESTINATIONS = 64, ROOM = 2048, BUFFER = 4 << 20 };

static struct mmsghdr messages[BATCH];
static struct iovec parts[BATCH];
static char room[BATCH][ROOM];
static struct sockaddr_in destinations[DESTINATIONS];

int main(int count, char **arguments) {
    struct sockaddr_in own;
    socklen_t length = sizeof own;
    int buffer = BUFFER, next = 0, place;
    int descriptor = socket(AF_INET, SOCK_DGRAM, 0);
    if (count != 2 || descriptor < 0) {
        return 2;
    }
    memset(&own, 0, sizeof own);
    own.sin_family = AF_INET;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) != 0) {
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    }
    if (bind(descriptor, (struct sockaddr *)&own, sizeof own) != 0 || getsockname(descriptor, (struct sockaddr *)&own, &length) != 0) {
        return 2;
    }
    for (place = 0; place < DESTINATIONS; place++) {
        destinations[place].sin_family = AF_INET;
        destinations[place].sin_port = htons((unsigned short)atoi(arguments[1]));
        destinations[place].sin_addr.s_addr = htonl(0x7f020001u + (unsigned)place);
    }
    printf("%u\n", (unsigned)ntohs(own.sin_port));
    fflush(stdout);
    for (;;) {
        int received, sent = 0;
        for (place = 0; place < BATCH; place++) {
            parts[place].iov_base = room[place];
            parts[place].iov_len = ROOM;
            memset(&messages[place], 0, sizeof messages[place]);
            messages[place].msg_hdr.msg_iov = &parts[place];
            messages[place].msg_hdr.msg_iovlen = 1;
        }
        received = recvmmsg(descriptor, messages, BATCH, MSG_WAITFORONE, NULL);
        for (place = 0; place < received; place++) {
            parts[place].iov_len = messages[place].msg_len;
            messages[place].msg_hdr.msg_name = &destinations[next++ % DESTINATIONS];
            messages[place].msg_hdr.msg_namelen = sizeof destinations[0];
        }
        while (sent < received) {
            int now = sendmmsg(descriptor, messages + sent, (unsigned)(received - sent), 0);
            sent += now > 0 ? now : 1;
        }
    }
}
