/* A disk that fails on demand, put in front of the C library with LD_PRELOAD.

   Only descriptors count whose path begins as the one given to fault_arm. Call number `first` and the `times - 1`
   calls after it fail with `error`; a write may be cut short instead. With a `ballast`, every write that would make a
   file longer fails with ENOSPC as long as the ballast is not empty. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, OPENS = 4, SIZES = 8 };

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

static int is_in(const char *path) {
    return is_exact ? strcmp(path, folder) == 0 : strncmp(path, folder, strlen(folder)) == 0;
}

static int is_ours(int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_in(path);
}

static int counts_as_failing(int kind) {
    if (!(armed_kinds & kind)) return 0;
    calls++;
    return calls >= first_call && calls <= last_call;
}

static int fails(int kind, int descriptor) {
    return armed_kinds && is_ours(descriptor) && counts_as_failing(kind);
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

ssize_t write(int descriptor, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (fails(WRITES, descriptor)) {
        if (is_short && size > 1) real(descriptor, data, size / 2);
        return errno = fault_error, -1;
    }
    return real(descriptor, data, size);
}

/* What makes a file; who opens one that is there needs no disk. */
static int faulty_open(const char *name, int at, const char *path, int flags, mode_t mode) {
    int (*real)(int, const char *, int, ...) = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, name);
    if (armed_kinds && (flags & O_CREAT) && is_in(path) && counts_as_failing(OPENS)) return errno = fault_error, -1;
    return real(at, path, flags, mode);
}

#define MODE_OF(flags) \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = (flags & O_CREAT) ? (mode_t)va_arg(rest, int) : 0; \
    va_end(rest)

int open(const char *path, int flags, ...) { MODE_OF(flags); return faulty_open("openat", AT_FDCWD, path, flags, mode); }

int open64(const char *path, int flags, ...) { MODE_OF(flags); return faulty_open("openat64", AT_FDCWD, path, flags, mode); }

int openat(int at, const char *path, int flags, ...) { MODE_OF(flags); return faulty_open("openat", at, path, flags, mode); }

int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags); return faulty_open("openat64", at, path, flags, mode); }

static int faulty_size(const char *name, int descriptor, off_t size) {
    int (*real)(int, off_t) = (int (*)(int, off_t))dlsym(RTLD_NEXT, name);
    if (fails(SIZES, descriptor)) return errno = fault_error, -1;
    return real(descriptor, size);
}

int ftruncate(int descriptor, off_t size) { return faulty_size("ftruncate", descriptor, size); }

int ftruncate64(int descriptor, off_t size) { return faulty_size("ftruncate64", descriptor, size); }

static int faulty_truncate(const char *name, const char *path, off_t size) {
    int (*real)(const char *, off_t) = (int (*)(const char *, off_t))dlsym(RTLD_NEXT, name);
    if (armed_kinds && is_in(path) && counts_as_failing(SIZES)) return errno = fault_error, -1;
    return real(path, size);
}

int truncate(const char *path, off_t size) { return faulty_truncate("truncate", path, size); }

int truncate64(const char *path, off_t size) { return faulty_truncate("truncate64", path, size); }

/* This one tells the error, and leaves errno alone. */
static int faulty_allocate(const char *name, int descriptor, off_t from, off_t size) {
    int (*real)(int, off_t, off_t) = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, name);
    return fails(SIZES, descriptor) ? fault_error : real(descriptor, from, size);
}

int posix_fallocate(int descriptor, off_t from, off_t size) { return faulty_allocate("posix_fallocate", descriptor, from, size); }

int posix_fallocate64(int descriptor, off_t from, off_t size) { return faulty_allocate("posix_fallocate64", descriptor, from, size); }
