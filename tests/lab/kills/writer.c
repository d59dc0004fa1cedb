/* writer PORT DIR DURABLE [DIR DURABLE]…: a guest's program that writes small files for as long as it lives.
 *
 * Of every directory, the files 1 to DURABLE must be there, with what they are to have; PORT (a virtio console
 * port) hears `good`, or `bad` and the first that is not. Then each directory gets more files, one after the
 * other, and PORT hears `DIR NUMBER` of each as soon as it is durable. Beside it a large file is written over and
 * over, and cut, which nobody waits for.
 *
 * File N of DIR is DIR/(N/100)/N, and has as many lines `DIR N` as 64 + N * 2654435761 / 2^12 % 6000 bytes hold. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int port;

static void say(const char *word, const char *directory, unsigned number)
{
    char line[128];
    int length = snprintf(line, sizeof line, "%s%s %u\n", word, directory, number);
    if (write(port, line, length) != length)
        _exit(1);
}

static void fail(const char *what)
{
    dprintf(port, "failed %s: %s\n", what, strerror(errno));
    _exit(1);
}

static size_t content(const char *directory, unsigned number, char *text)
{
    char line[128];
    size_t line_length = snprintf(line, sizeof line, "%s %u\n", directory, number);
    size_t size = 64 + ((uint32_t)(number * 2654435761u) >> 12) % 6000;
    for (size_t at = 0; at < size; at++)
        text[at] = line[at % line_length];
    return size;
}

static void name(const char *directory, unsigned number, char *folder, char *file)
{
    sprintf(folder, "%s/%u", directory, number / 100);
    sprintf(file, "%s/%u", folder, number);
}

static int is_there(const char *directory, unsigned number)
{
    static char wanted[8192], found[8192];
    char folder[128], file[256];
    name(directory, number, folder, file);
    size_t size = content(directory, number, wanted);
    int from = open(file, O_RDONLY);
    if (from < 0)
        return 0;
    ssize_t got = read(from, found, sizeof found);
    close(from);
    return got == (ssize_t)size && memcmp(wanted, found, size) == 0;
}

static void make_durable(const char *path)
{
    int what = open(path, O_RDONLY);
    if (what < 0 || fsync(what) < 0)
        fail(path);
    close(what);
}

static void write_files(const char *directory, unsigned number)
{
    static char text[8192];
    char folder[128], file[256];
    for (;; number++) {
        name(directory, number, folder, file);
        int new_folder = mkdir(folder, 0755) == 0;
        size_t size = content(directory, number, text);
        int to = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (to < 0 || write(to, text, size) != (ssize_t)size || fsync(to) < 0)
            fail(file);
        close(to);
        make_durable(folder);
        if (new_folder)
            make_durable(directory);
        say("", directory, number);
    }
}

static void write_and_cut(const char *directory)
{
    static char noise[1 << 16];
    char file[128];
    sprintf(file, "%s/large", directory);
    int to = open(file, O_WRONLY | O_CREAT, 0644);
    if (to < 0)
        fail(file);
    for (unsigned turn = 0;; turn++) {
        memset(noise, 'a' + turn % 26, sizeof noise);
        if (pwrite(to, noise, sizeof noise, (off_t)(turn % 32) * sizeof noise) < 0)
            fail(file);
        if (turn % 50 == 49 && ftruncate(to, (off_t)(turn % 7) * 10000) < 0)
            fail(file);
        if (turn % 10 == 9 && sync_file_range(to, 0, 0, SYNC_FILE_RANGE_WRITE) < 0)
            fail(file);
        usleep(20000);
    }
}

int main(int count, char **words)
{
    if (count < 4 || (port = open(words[1], O_WRONLY)) < 0)
        return 1;
    for (int at = 2; at + 1 < count; at += 2)
        for (unsigned number = 1; number <= (unsigned)atoi(words[at + 1]); number++)
            if (!is_there(words[at], number)) {
                say("bad ", words[at], number);
                return 1;
            }
    dprintf(port, "good\n");
    for (int at = 2; at + 1 < count; at += 2) {
        if (fork() == 0)
            write_files(words[at], atoi(words[at + 1]) + 1);
        if (fork() == 0)
            write_and_cut(words[at]);
    }
    while (wait(NULL) > 0)
        ;
    return 1;
}
