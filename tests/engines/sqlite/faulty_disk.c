/* A disk that fails on demand, put in front of the C library with LD_PRELOAD.

   Only descriptors count whose path begins as the one given to fault_arm. Call number `first` and the `times - 1`
   calls after it fail with `error`; a pwrite may be cut short instead. With a `ballast`, every write that would make a
   file longer fails with ENOSPC as long as the
   ballast is not empty. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2 };

static char folder[4096], ballast[4096];
static int armed_kinds, fault_error, is_short, is_exact;
static long first_call, last_call, calls;

void fault_arm(const char *below, int kinds, long first, long times, int error, int shorten) {
    snprintf(folder, sizeof folder, "%s", below);
    first_call = first, last_call = first + times - 1, calls = 0;
    fault_error = error, is_short = shorten, armed_kinds = kinds;
}

/* Only the file of exactly this name fails, always. */
void fault_arm_exactly(const char *path, int kinds, int error, int shorten) {
    fault_arm(path, kinds, 1, 1000000000, error, shorten);
    is_exact = 1;
}

void fault_fill(const char *below, const char *until_gone) {
    snprintf(folder, sizeof folder, "%s", below);
    snprintf(ballast, sizeof ballast, "%s", until_gone);
}

long fault_disarm(void) {
    armed_kinds = 0, is_exact = 0, ballast[0] = 0;
    return calls;
}

static int is_ours(int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_exact ? strcmp(path, folder) == 0 : strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(int kind, int descriptor) {
    if (!(armed_kinds & kind) || !is_ours(descriptor)) return 0;
    calls++;
    return calls >= first_call && calls <= last_call;
}

static int stands(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && status.st_size > 0;
}

static int is_full(int descriptor, off_t end) {
    struct stat status;
    if (!ballast[0] || !is_ours(descriptor) || !stands(ballast)) return 0;
    return fstat(descriptor, &status) == 0 && end > status.st_size;
}

static ssize_t faulty_pwrite(const char *name, int descriptor, const void *data, size_t size, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, name);
    if (is_full(descriptor, at + (off_t)size)) return errno = ENOSPC, -1;
    if (fails(WRITES, descriptor)) {
        if (is_short && size > 1) real(descriptor, data, size / 2, at);
        return errno = fault_error, -1;
    }
    return real(descriptor, data, size, at);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t at) {
    return faulty_pwrite("pwrite", descriptor, data, size, at);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t at) {
    return faulty_pwrite("pwrite64", descriptor, data, size, at);
}

static int faulty_sync(const char *name, int descriptor) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (fails(SYNCS, descriptor)) return errno = fault_error, -1;
    return real(descriptor);
}

int fdatasync(int descriptor) { return faulty_sync("fdatasync", descriptor); }

int fsync(int descriptor) { return faulty_sync("fsync", descriptor); }
