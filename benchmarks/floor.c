/* The floor of the benchmarks: as little as a star of processes over TCP can do, in C.
 *
 * One server with epoll, clients that block. No encoding, no deadlines, no sessions, no tags, nothing survives a broken
 * connection: what a figure has above this one is what the promises of a library and its language cost.
 *
 *   cc -O2 -o floor floor.c                    the server: `floor FD WORLD_SIZE` serves on a listening socket
 *   cc -O2 -shared -fPIC -o floor.so floor.c   the client: floor_open and the functions after it
 *
 * A frame is a head of 8 bytes and a body. Whoever sends a head sends its body at once, so the server reads and writes
 * whole frames with calls that block, and a large body passes through it in chunks. Two ranks that send each other large
 * messages at the same time would block the star; no operation that is measured does that.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { HELLO, BARRIER, GATHER, BROADCAST, MESSAGE };
enum { BUFFER = 1 << 16, CHUNK = 1 << 18 };

struct head {
    uint16_t kind;
    uint16_t peer; /* to the server: the destination, or in HELLO one's own rank; from it: the source */
    uint32_t length;
};

/* One end of a connection, with what was read and not yet used. */
struct end {
    int fd;
    uint16_t rank;
    size_t from, to;
    char *body; /* of a client: the last that it took; of a server: what this rank gave to the gather */
    size_t length, room;
    char buffer[BUFFER];
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void write_all(int fd, struct head head, const void *body, size_t length) {
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)body, length}};
    struct iovec *part = parts, *end = parts + 2;
    while (part < end) {
        ssize_t wrote = writev(fd, part, end - part);
        if (wrote < 0) die("write");
        while (part < end && (size_t)wrote >= part->iov_len) wrote -= (part++)->iov_len;
        if (part < end) {
            part->iov_base = (char *)part->iov_base + wrote;
            part->iov_len -= wrote;
        }
    }
}

static void write_bytes(int fd, const char *bytes, size_t length) {
    for (ssize_t wrote; length > 0; bytes += wrote, length -= wrote)
        if ((wrote = write(fd, bytes, length)) < 0) die("write");
}

/* Take `length` bytes, however long that blocks; 0 at the end of the connection. */
static int pull(struct end *end, char *out, size_t length) {
    while (length > 0) {
        size_t have = end->to - end->from, take = have < length ? have : length;
        memcpy(out, end->buffer + end->from, take);
        end->from += take, out += take, length -= take;
        if (length == 0) break;
        /* What is longer than the buffer goes where it belongs without passing through it. */
        int direct = length >= BUFFER;
        ssize_t got = recv(end->fd, direct ? out : end->buffer, direct ? length : BUFFER, 0);
        if (got < 0) die("recv");
        if (got == 0) return 0;
        if (direct) out += got, length -= got;
        else end->from = 0, end->to = got;
    }
    return 1;
}

static void make_room(struct end *end, size_t length) {
    if (end->room >= length) return;
    end->body = realloc(end->body, end->room = length);
    if (end->body == NULL) die("realloc");
}

static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* ---- the server ---- */

static struct end **members; /* by rank */
static unsigned world_size, arrived;

static void release(void) {
    struct head head = {BARRIER, 0, 0};
    if (++arrived < world_size) return;
    arrived = 0;
    for (unsigned rank = 0; rank < world_size; rank++) write_all(members[rank]->fd, head, NULL, 0);
}

static void gather(struct end *giver, uint32_t length) {
    static char *all;
    static size_t room;
    size_t used = 0;
    make_room(giver, length);
    if (!pull(giver, giver->body, length)) die("a gift that ends early");
    giver->length = length;
    if (++arrived < world_size) return;
    arrived = 0;
    for (unsigned rank = 0; rank < world_size; rank++) {
        size_t need = used + members[rank]->length;
        if (need > room && (all = realloc(all, room = need * 2)) == NULL) die("realloc");
        memcpy(all + used, members[rank]->body, members[rank]->length);
        used = need;
    }
    struct head head = {GATHER, 0, used};
    for (unsigned rank = 0; rank < world_size; rank++) write_all(members[rank]->fd, head, all, used);
}

/* Pass a body on, chunk by chunk, to the ranks from `first` up to `last` but for the source. */
static void forward(struct end *source, struct head head, unsigned first, unsigned last) {
    static char chunk[CHUNK];
    size_t left = head.length, size;
    int begun = 0;
    head.peer = source->rank;
    do {
        size = left < CHUNK ? left : CHUNK;
        if (!pull(source, chunk, size)) die("a body that ends early");
        for (unsigned rank = first; rank <= last; rank++) {
            if (rank == source->rank) continue;
            if (begun) write_bytes(members[rank]->fd, chunk, size);
            else write_all(members[rank]->fd, head, chunk, size);
        }
        begun = 1;
    } while (left -= size);
}

static void handle(struct end *from, struct head head) {
    switch (head.kind) {
    case HELLO: members[from->rank = head.peer] = from; release(); break;
    case BARRIER: release(); break;
    case GATHER: gather(from, head.length); break;
    case BROADCAST: forward(from, head, 0, world_size - 1); break;
    case MESSAGE: forward(from, head, head.peer, head.peer); break;
    default: fprintf(stderr, "no such kind: %d\n", head.kind); exit(1);
    }
}

/* Read once what is there and handle every frame that has begun; 0 at the end of the connection. */
static int serve_end(struct end *end) {
    if (end->from > 0) {
        memmove(end->buffer, end->buffer + end->from, end->to - end->from);
        end->to -= end->from, end->from = 0;
    }
    ssize_t got = recv(end->fd, end->buffer + end->to, BUFFER - end->to, MSG_DONTWAIT);
    if (got == 0) return 0;
    if (got < 0) {
        if (errno == EAGAIN) return 1; /* a frame before took it already */
        return errno == ECONNRESET ? 0 : (die("recv"), 0);
    }
    end->to += got;
    while (end->to - end->from >= sizeof(struct head)) {
        struct head head;
        pull(end, (char *)&head, sizeof head);
        handle(end, head);
    }
    return 1;
}

static void accept_one(int epoll, int listener) {
    struct end *end = calloc(1, sizeof *end);
    if (end == NULL || (end->fd = accept(listener, NULL, NULL)) < 0) die("accept");
    no_delay(end->fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = end};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, end->fd, &event) < 0) die("epoll_ctl");
}

/* Serve until the last of the world_size members has gone. */
int main(int count, char **arguments) {
    if (count != 3) return fprintf(stderr, "floor FD WORLD_SIZE\n"), 2;
    int listener = atoi(arguments[1]), epoll = epoll_create1(0);
    world_size = atoi(arguments[2]);
    members = calloc(world_size, sizeof *members);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, ready[64];
    if (members == NULL || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0) die("epoll_ctl");
    for (unsigned gone = 0; gone < world_size;) {
        int events = epoll_wait(epoll, ready, 64, -1);
        for (int i = 0; i < events; i++) {
            struct end *end = ready[i].data.ptr;
            if (end == NULL) accept_one(epoll, listener);
            else if (!serve_end(end)) close(end->fd), gone++; /* closing takes it out of the epoll set */
        }
    }
    return 0;
}

/* ---- the client ---- */

/* Connect to a server on loopback; returns when every rank has. */
struct end *floor_open(int port, int rank);
/* Send a frame. */
void floor_give(struct end *end, int kind, int peer, const void *body, size_t length);
/* Wait for a frame, which must be of this kind; returns the length of its body, -1 at the end of the connection. */
long floor_take(struct end *end, int kind);
/* The body of the last frame, good until the next. */
const char *floor_body(struct end *end);
void floor_close(struct end *end);

struct end *floor_open(int port, int rank) {
    struct end *end = calloc(1, sizeof *end);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (end == NULL || (end->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0) die("socket");
    if (connect(end->fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    no_delay(end->fd);
    floor_give(end, HELLO, rank, NULL, 0);
    if (floor_take(end, BARRIER) < 0) die("a server that ended");
    return end;
}

void floor_give(struct end *end, int kind, int peer, const void *body, size_t length) {
    struct head head = {kind, peer, length};
    write_all(end->fd, head, body, length);
}

long floor_take(struct end *end, int kind) {
    struct head head;
    if (!pull(end, (char *)&head, sizeof head)) return -1;
    if (head.kind != kind) {
        fprintf(stderr, "a frame of kind %d instead of %d\n", head.kind, kind);
        exit(1);
    }
    make_room(end, head.length);
    return pull(end, end->body, head.length) ? (long)head.length : -1;
}

const char *floor_body(struct end *end) { return end->body; }

void floor_close(struct end *end) {
    close(end->fd);
    free(end->body);
    free(end);
}
