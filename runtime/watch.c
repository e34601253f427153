/* runtime/watch.c - how ranks that are processes notice that one is lost, and how all of them end. Start with watch and processes_judge.
 *
 * A control message is a FRAME, with a text behind it where one is due:
 *   BEAT    this rank lives; its last collective
 *   FAILED  to rank 0: this rank cannot go on; code and line
 *   END     from rank 0: all is over; code and line (which rank 0 prints)
 *   BYE     this rank is done, or has been told; its connection will close
 */
#include "runtime/plan.h"
#include "runtime/processes_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum message { BEAT = 1, FAILED, END, BYE };

/* Whoever takes over from rank 0 stays so long, so that others see that it is there. */
#define LINGER 0.3

const char *const collective_names[COLLECTIVES] = {[NO_COLLECTIVE] = "none yet",
                                                   [BARRIER] = "barrier",
                                                   [ALL_REDUCE] = "all_reduce",
                                                   [ALL_GATHER] = "all_gather",
                                                   [REDUCE_SCATTER] = "reduce_scatter",
                                                   [ALL_TO_ALL] = "all_to_all",
                                                   [BROADCAST] = "broadcast"};

static void send_frame(int fd, enum message kind, uint32_t number, uint32_t what, const char *text)
{
    unsigned char frame[FRAME + VERDICT_LINE];
    size_t length = text ? strnlen(text, VERDICT_LINE - 1) : 0;
    put_little(frame, kind, 4);
    put_little(frame + 4, number, 4);
    put_little(frame + 8, what, 4);
    put_little(frame + 12, length, 4);
    memcpy(frame + FRAME, text ? text : "", length);
    if (fd >= 0) /* a peer that takes nothing is silent, and that is noticed by itself */
        (void)net_write(fd, frame, FRAME + length, kind == BEAT ? 0 : net_now() + 0.2);
}

/* To rank 0, or from it to all. Under the lock. */
static void tell(struct processes *p, enum message kind, uint32_t number, uint32_t what, const char *text)
{
    for (uint32_t r = 0; r < p->ranks; r++)
        if (!p->peer[r].left || kind == BYE)
            send_frame(p->peer[r].control, kind, number, what, text);
}

/* ---- the verdict ------------------------------------------------------------------------------------------------------ */

void processes_judge(struct processes *p, status code, bool speaker, const char *line)
{
    pthread_mutex_lock(&p->lock);
    bool first = !atomic_load(&p->ended);
    if (first) {
        p->verdict = code;
        p->speaker = speaker;
        snprintf(p->line, sizeof p->line, "%s", line ? line : "");
        if (speaker && *p->line) {
            fprintf(stderr, "%s\n", p->line);
            fflush(stderr);
        }
        if (p->rank == 0)
            tell(p, END, (uint32_t)code, 0, p->line);
        atomic_store(&p->ended, true);
    }
    pthread_mutex_unlock(&p->lock);
    if (!first)
        return;
    (void)!write(p->wake[1], "", 1);
    (void)!write(p->nudge[1], "", 1);
}

/* Is there a lower rank, but rank 0, that would speak? */
static bool lowest_left(const struct processes *p)
{
    for (uint32_t r = 1; r < p->rank; r++) {
        char byte;
        ssize_t n = recv(p->peer[r].data, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
            return false;
    }
    return true;
}

static void lose(struct processes *p, uint32_t r, const char *how)
{
    const struct peer *peer = &p->peer[r];
    char line[VERDICT_LINE];
    uint32_t mine = atomic_load(&p->sequence), what = atomic_load(&p->what);
    uint32_t number =
        peer->sequence > mine ? peer->sequence : mine; /* its last word may be old: then ours is nearer to it */
    what = peer->sequence > mine ? peer->what : what;
    if (number)
        snprintf(line, sizeof line, "tpc: error: rank %u on %s %s; last collective: number %u, %s", (unsigned)r,
                 peer->host, how, (unsigned)number, collective_names[what < COLLECTIVES ? what : 0]);
    else
        snprintf(line, sizeof line, "tpc: error: rank %u on %s %s; there was no collective yet", (unsigned)r,
                 peer->host, how);
    processes_judge(p, TPC_RANKS, p->rank == 0 || lowest_left(p), line);
}

/* ---- the watcher -------------------------------------------------------------------------------------------------------- */

static void obey(struct processes *p, uint32_t r)
{
    struct peer *peer = &p->peer[r];
    uint32_t number = (uint32_t)get_little(peer->frame + 4, 4), what = (uint32_t)get_little(peer->frame + 8, 4);
    char *line = (char *)peer->frame + FRAME;
    line[get_little(peer->frame + 12, 4)] = 0;
    for (char *c = line; *c; c++)
        *c = *c < ' ' ? '?' : *c;
    switch (get_little(peer->frame, 4)) {
    case BEAT:
        peer->sequence = number;
        peer->what = what;
        return;
    case FAILED: /* it waits for END, then says BYE */
        processes_judge(p, (status)(number & 0xff), p->rank == 0, line);
        return;
    case END:
        peer->left = true;
        processes_judge(p, (status)(number & 0xff), false, line);
        return;
    case BYE:
        peer->left = true;
        return;
    default:
        lose(p, r, "sent what is not of this protocol");
    }
}

/* Reads what has come from r, frame by frame. */
static void listen_to(struct processes *p, uint32_t r)
{
    struct peer *peer = &p->peer[r];
    for (;;) {
        size_t due = FRAME;
        if (peer->got >= FRAME)
            due += get_little(peer->frame + 12, 4);
        if (due >= sizeof peer->frame) {
            lose(p, r, "sent what is not of this protocol");
            peer->left = true;
            return;
        }
        if (peer->got == due) {
            obey(p, r);
            peer->got = 0;
            if (peer->left)
                return;
            continue;
        }
        ssize_t n = recv(peer->control, peer->frame + peer->got, due - peer->got, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            if (!peer->left)
                lose(p, r, "ended without a farewell (it was killed, or its host is gone)");
            peer->left = true;
            return;
        }
        peer->got += (size_t)n;
        peer->heard = net_now();
    }
}

static void check_silence(struct processes *p, double now)
{
    char how[96];
    for (uint32_t r = 0; r < p->ranks; r++)
        if (p->peer[r].control >= 0 && !p->peer[r].left && now - p->peer[r].heard > p->timeout) {
            snprintf(how, sizeof how, "is silent for %g s (it was stopped, or its host is cut off)", p->timeout);
            lose(p, r, how);
            p->peer[r].left = true;
        }
}

/* Waits for words until `until`; reads them. */
static void listen_until(struct processes *p, double until, struct pollfd *polled)
{
    polled[0] = (struct pollfd){.fd = p->nudge[0], .events = POLLIN};
    for (uint32_t r = 0; r < p->ranks; r++)
        polled[1 + r] = (struct pollfd){.fd = p->peer[r].left ? -1 : p->peer[r].control, .events = POLLIN};
    double left = until - net_now();
    if (poll(polled, 1 + p->ranks, left < 0 ? 0 : (int)(1e3 * left) + 1) <= 0)
        return;
    char bytes[16];
    if (polled[0].revents)
        (void)!read(p->nudge[0], bytes, sizeof bytes);
    for (uint32_t r = 0; r < p->ranks; r++)
        if (polled[1 + r].revents)
            listen_to(p, r);
}

/* The thread. Whatever the others do: once all is over the process ends. */
static void *watch(void *argument)
{
    struct processes *p = argument;
    struct pollfd *polled = base_alloc((1 + p->ranks) * sizeof *polled);
    double beat = p->timeout / 8 < 1 ? p->timeout / 8 : 1, next = 0, end = 0, before = net_now();
    while (polled && !atomic_load(&p->leaving)) {
        listen_until(p, next, polled);
        double now = net_now();
        if (now - before >
            beat + p->timeout / 2) /* this process was stopped itself: what it missed is not others' silence */
            for (uint32_t r = 0; r < p->ranks; r++)
                p->peer[r].heard = now;
        before = now;
        check_silence(p, now);
        if (now >= next && !atomic_load(&p->ended)) {
            pthread_mutex_lock(&p->lock);
            tell(p, BEAT, atomic_load(&p->sequence), atomic_load(&p->what), NULL);
            pthread_mutex_unlock(&p->lock);
        }
        next = now >= next ? now + beat : next;
        if (atomic_load(&p->ended) && end == 0)
            end = now + GRACE;
        if (end != 0 && now > end)
            _exit((int)p->verdict);
        if (end != 0)
            next = now + 0.1;
    }
    base_free(polled);
    return NULL;
}

static bool make_pipe(int ends[2])
{
    return pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0;
}

status processes_watch(struct processes *p)
{
    for (uint32_t r = 0; r < p->ranks; r++)
        p->peer[r].heard = net_now();
    bool good = make_pipe(p->wake) && make_pipe(p->nudge) && pthread_create(&p->watcher, NULL, watch, p) == 0;
    p->watched = good;
    return good ? TPC_OK : diag_error(NULL, TPC_INTERNAL, NULL, "cannot start a thread that watches over the ranks");
}

/* ---- leaving -------------------------------------------------------------------------------------------------------------- */

/* Until there is a verdict. */
static void await_verdict(struct processes *p, double seconds)
{
    for (double until = net_now() + seconds; !atomic_load(&p->ended) && net_now() < until;)
        (void)poll(&(struct pollfd){.fd = p->wake[0], .events = POLLIN}, 1, 20);
}

void processes_fail(struct processes *p, status code, const char *line)
{
    if (p->rank != 0 && !atomic_load(&p->ended)) {
        pthread_mutex_lock(&p->lock);
        tell(p, FAILED, (uint32_t)code, 0, line);
        pthread_mutex_unlock(&p->lock);
        await_verdict(p, GRACE / 2);
    }
    processes_judge(p, code, true, line);
}

status processes_leave(struct processes *p, status code, const char *line)
{
    if (code != TPC_OK)
        processes_fail(p, code, line);
    if (atomic_load(&p->ended)) {
        code = p->verdict;
        if (p->speaker && p->rank != 0)
            (void)poll(NULL, 0, (int)(1e3 * LINGER));
    }
    pthread_mutex_lock(&p->lock);
    tell(p, BYE, 0, 0, NULL);
    pthread_mutex_unlock(&p->lock);
    processes_free(p);
    return code;
}

bool processes_ended(const struct processes *p)
{
    return atomic_load(&p->ended);
}

uint32_t processes_rank(const struct processes *p)
{
    return p->rank;
}

uint32_t processes_first_here(const struct processes *p, uint32_t *count)
{
    uint32_t first = p->rank, here = 0;
    for (uint32_t r = p->ranks; r-- > 0;)
        if (strcmp(p->peer[r].host, p->peer[p->rank].host) == 0) {
            first = r;
            here++;
        }
    if (count)
        *count = here;
    return first;
}

static void close_end(int fd)
{
    if (fd >= 0)
        close(fd);
}

void processes_free(struct processes *p)
{
    if (!p)
        return;
    atomic_store(&p->leaving, true);
    if (p->watched) {
        (void)!write(p->nudge[1], "", 1);
        pthread_join(p->watcher, NULL);
    }
    comm_processes_free(p->comm);
    for (int i = 0; i < 2; i++) {
        close_end(p->wake[i]);
        close_end(p->nudge[i]);
    }
    for (uint32_t r = 0; r < p->ranks; r++) {
        close_end(p->peer[r].data);
        close_end(p->peer[r].control);
    }
    pthread_mutex_destroy(&p->lock);
    base_free(p->peer);
    base_free(p);
}
