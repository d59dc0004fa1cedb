/* Plays a QXL recording through the reference server, libspice-server, to one SPICE client:
 *
 *     reference_replay FILE.rec PORT DELAY_MS
 *
 * Speaks as `qxl/examples/replay` does: says where it listens, waits for a display channel, plays, says
 * how many commands there were, and ends when the client leaves. There are DELAY_MS after each command, in
 * which the thread that draws sleeps. Here that is also the one that encodes and sends: the server then
 * leaves out what was drawn over meanwhile, so this costs it fewer bytes than commands from outside would.
 * It is set up with no ticket, images by auto_glz, and video found by its filter.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <spice.h>
#include <spice/enums.h>
#include <spice/macros.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Surfaces that a guest of the recordings may have: what QEMU tells its server. */
#define SURFACES 1024
/* Between two looks at whether the server has taken a command. */
#define POLL_MS 1

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The loop that the server asks for: timers and watches, both in lists, as there are a dozen. What is
 * removed is freed only when nobody walks the list. */

struct SpiceTimer {
    SpiceTimerFunc func;
    void *opaque;
    uint64_t due; /* 0 while it does not run */
    bool removed;
    SpiceTimer *next;
};

struct SpiceWatch {
    int fd;
    int mask;
    SpiceWatchFunc func;
    void *opaque;
    bool removed;
    SpiceWatch *next;
};

static SpiceTimer *timers;
static SpiceWatch *watches;

static SpiceTimer *timer_add(SpiceTimerFunc func, void *opaque)
{
    SpiceTimer *timer = calloc(1, sizeof *timer);
    *timer = (SpiceTimer){ .func = func, .opaque = opaque, .next = timers };
    return timers = timer;
}

static void timer_start(SpiceTimer *timer, uint32_t ms)
{
    timer->due = now_ms() + ms;
}

static void timer_cancel(SpiceTimer *timer)
{
    timer->due = 0;
}

static void timer_remove(SpiceTimer *timer)
{
    timer->removed = true;
    timer->due = 0;
}

static SpiceWatch *watch_add(int fd, int mask, SpiceWatchFunc func, void *opaque)
{
    SpiceWatch *watch = calloc(1, sizeof *watch);
    *watch = (SpiceWatch){ .fd = fd, .mask = mask, .func = func, .opaque = opaque, .next = watches };
    return watches = watch;
}

static void watch_update_mask(SpiceWatch *watch, int mask)
{
    watch->mask = mask;
}

static void watch_remove(SpiceWatch *watch)
{
    watch->removed = true;
}

#define SWEEP(list)                      \
    for (__typeof__(list) *at = &list; *at;) { \
        __typeof__(list) one = *at;      \
        if (one->removed) {              \
            *at = one->next;             \
            free(one);                   \
        } else {                         \
            at = &one->next;             \
        }                                \
    }

static void run_watches(int timeout_ms)
{
    size_t count = 0;
    for (SpiceWatch *watch = watches; watch; watch = watch->next)
        count++;
    struct pollfd fds[count + 1];
    SpiceWatch *of[count + 1];
    count = 0;
    for (SpiceWatch *watch = watches; watch; watch = watch->next) {
        short events = (watch->mask & SPICE_WATCH_EVENT_READ ? POLLIN : 0)
                       | (watch->mask & SPICE_WATCH_EVENT_WRITE ? POLLOUT : 0);
        of[count] = watch;
        fds[count++] = (struct pollfd){ .fd = watch->fd, .events = events };
    }
    if (poll(fds, count, timeout_ms) <= 0)
        return;
    for (size_t i = 0; i < count; i++) {
        int event = (fds[i].revents & (POLLIN | POLLERR | POLLHUP) ? SPICE_WATCH_EVENT_READ : 0)
                    | (fds[i].revents & POLLOUT ? SPICE_WATCH_EVENT_WRITE : 0);
        if (!of[i]->removed && (event & of[i]->mask))
            of[i]->func(of[i]->fd, event & of[i]->mask, of[i]->opaque);
    }
}

static void run_timers(void)
{
    uint64_t now = now_ms();
    for (SpiceTimer *timer = timers; timer; timer = timer->next) {
        if (timer->due && timer->due <= now) {
            timer->due = 0;
            timer->func(timer->opaque);
        }
    }
}

static int ms_to_next_timer(int most)
{
    uint64_t now = now_ms();
    for (SpiceTimer *timer = timers; timer; timer = timer->next) {
        if (!timer->due)
            continue;
        int wait = timer->due <= now ? 0 : (int)(timer->due - now);
        most = wait < most ? wait : most;
    }
    return most;
}

/* One turn of the loop, which waits no longer than this. */
static void turn(int most_ms)
{
    run_watches(ms_to_next_timer(most_ms));
    run_timers();
    SWEEP(watches);
    SWEEP(timers);
}

/* The channel's state is told from whichever thread serves it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool display_came;
static bool display_left;

static void channel_event(int event, SpiceChannelEventInfo *info)
{
    if (info->type != SPICE_CHANNEL_DISPLAY)
        return;
    pthread_mutex_lock(&lock);
    display_came |= event == SPICE_CHANNEL_EVENT_INITIALIZED;
    display_left |= event == SPICE_CHANNEL_EVENT_DISCONNECTED;
    pthread_mutex_unlock(&lock);
}

static bool is_set(const bool *flag)
{
    pthread_mutex_lock(&lock);
    bool value = *flag;
    pthread_mutex_unlock(&lock);
    return value;
}

static SpiceCoreInterface core = {
    .base = { .type = SPICE_INTERFACE_CORE,
              .description = "loop",
              .major_version = SPICE_INTERFACE_CORE_MAJOR,
              .minor_version = SPICE_INTERFACE_CORE_MINOR },
    .timer_add = timer_add,
    .timer_start = timer_start,
    .timer_cancel = timer_cancel,
    .timer_remove = timer_remove,
    .watch_add = watch_add,
    .watch_update_mask = watch_update_mask,
    .watch_remove = watch_remove,
    .channel_event = channel_event,
};

/* The device: a ring of one command, which the server's worker thread empties. */

static SpiceReplay *replay;
static unsigned delay_ms;
static QXLCommandExt *next_command;

static bool is_cursor(const QXLCommandExt *command)
{
    return command->cmd.type == QXL_CMD_CURSOR;
}

static int take(bool cursor, QXLCommandExt *out)
{
    pthread_mutex_lock(&lock);
    QXLCommandExt *command = next_command;
    bool taken = command && is_cursor(command) == cursor;
    if (taken) {
        *out = *command;
        next_command = NULL;
    }
    pthread_mutex_unlock(&lock);
    if (taken)
        poll(NULL, 0, (int)delay_ms);
    return taken;
}

static int get_command(QXLInstance *instance SPICE_GNUC_UNUSED, QXLCommandExt *out)
{
    return take(false, out);
}

static int get_cursor_command(QXLInstance *instance SPICE_GNUC_UNUSED, QXLCommandExt *out)
{
    return take(true, out);
}

static int want_notification(QXLInstance *instance SPICE_GNUC_UNUSED)
{
    /* Each command is followed by a wake-up. */
    return 1;
}

static int flush_resources(QXLInstance *instance SPICE_GNUC_UNUSED)
{
    return 0;
}

static void release_resource(QXLInstance *instance SPICE_GNUC_UNUSED, QXLReleaseInfoExt release)
{
    /* The player puts the command's own address where a guest has its id. */
    spice_replay_free_cmd(replay, (QXLCommandExt *)(uintptr_t)release.info->id);
}

static void get_init_info(QXLInstance *instance SPICE_GNUC_UNUSED, QXLDevInitInfo *info)
{
    *info = (QXLDevInitInfo){ .num_memslots_groups = 1,
                              .num_memslots = 1,
                              .memslot_gen_bits = 8,
                              .memslot_id_bits = 8,
                              .qxl_ram_size = UINT32_MAX,
                              .n_surfaces = SURFACES };
}

/* The player's pointers are our own: a slot of all memory. */
static QXLDevMemSlot everything = { .virt_start = 0, .virt_end = UINTPTR_MAX };

static void attached(QXLInstance *instance)
{
    spice_qxl_add_memslot(instance, &everything);
}

static void ignore_level(QXLInstance *instance SPICE_GNUC_UNUSED, int level SPICE_GNUC_UNUSED) {}
static void ignore_update(QXLInstance *instance SPICE_GNUC_UNUSED, uint32_t id SPICE_GNUC_UNUSED) {}
static void ignore_async(QXLInstance *instance SPICE_GNUC_UNUSED, uint64_t cookie SPICE_GNUC_UNUSED) {}
static void ignore_area(QXLInstance *instance SPICE_GNUC_UNUSED, uint32_t surface SPICE_GNUC_UNUSED,
                        QXLRect *areas SPICE_GNUC_UNUSED, uint32_t count SPICE_GNUC_UNUSED)
{
}
static void ignore_clients(QXLInstance *instance SPICE_GNUC_UNUSED, uint8_t present SPICE_GNUC_UNUSED,
                           uint8_t caps[SPICE_CAPABILITIES_SIZE] SPICE_GNUC_UNUSED)
{
}

static QXLInterface device = {
    .base = { .type = SPICE_INTERFACE_QXL,
              .description = "replay",
              .major_version = SPICE_INTERFACE_QXL_MAJOR,
              .minor_version = SPICE_INTERFACE_QXL_MINOR },
    .attached_worker = attached,
    .set_compression_level = ignore_level,
    .get_init_info = get_init_info,
    .get_command = get_command,
    .req_cmd_notification = want_notification,
    .release_resource = release_resource,
    .get_cursor_command = get_cursor_command,
    .req_cursor_notification = want_notification,
    .notify_update = ignore_update,
    .flush_resources = flush_resources,
    .async_complete = ignore_async,
    .update_area_complete = ignore_area,
    .set_client_capabilities = ignore_clients,
};

static QXLInstance instance = { .base = { .sif = &device.base } };

static bool ring_is_empty(void)
{
    pthread_mutex_lock(&lock);
    bool empty = !next_command;
    pthread_mutex_unlock(&lock);
    return empty;
}

static unsigned long play(void)
{
    unsigned long commands = 0;
    QXLCommandExt *command;
    /* Surfaces are made and destroyed by the player itself, in here. */
    while (!is_set(&display_left) && (command = spice_replay_next_cmd(replay, &instance))) {
        commands++;
        pthread_mutex_lock(&lock);
        next_command = command;
        pthread_mutex_unlock(&lock);
        spice_qxl_wakeup(&instance);
        while (!ring_is_empty() && !is_set(&display_left))
            turn(POLL_MS);
    }
    return commands;
}

int main(int count, char **words)
{
    if (count != 4) {
        fprintf(stderr, "usage: reference_replay FILE.rec PORT DELAY_MS\n");
        return 64;
    }
    delay_ms = strtoul(words[3], NULL, 10);
    FILE *file = fopen(words[1], "r");
    if (!file) {
        fprintf(stderr, "%s: %s\n", words[1], strerror(errno));
        return 71;
    }
    SpiceServer *server = spice_server_new();
    spice_server_set_addr(server, "127.0.0.1", SPICE_ADDR_FLAG_IPV4_ONLY);
    spice_server_set_port(server, atoi(words[2]));
    spice_server_set_noauth(server);
    spice_server_set_image_compression(server, SPICE_IMAGE_COMPRESSION_AUTO_GLZ);
    spice_server_set_streaming_video(server, SPICE_STREAM_VIDEO_FILTER);
    if (spice_server_init(server, &core) != 0) {
        fprintf(stderr, "the server can't listen on port %s\n", words[2]);
        return 71;
    }
    spice_server_add_interface(server, &instance.base);
    spice_server_vm_start(server);
    replay = spice_replay_new(file, SURFACES);
    if (!replay) {
        fprintf(stderr, "%s is no recording\n", words[1]);
        return 65;
    }
    printf("listening on 127.0.0.1:%s\n", words[2]);
    fflush(stdout);

    while (!is_set(&display_came))
        turn(10);
    uint64_t begin = now_ms();
    unsigned long commands = play();
    printf("%lu commands in %llu ms\n", commands, (unsigned long long)(now_ms() - begin));
    fflush(stdout);
    while (!is_set(&display_left))
        turn(100);
    /* Without the orderly end: the server's worker may still hold commands. */
    _Exit(0);
}
