// Loaded into PostgreSQL ahead of libc (LD_PRELOAD): counts flushes and round trips of all its processes in the file
// that FINAIFLOW_PROBE names, and makes each flush as much slower as that file says, at once and without a restart.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct probe {
  _Atomic int64_t delay_us, flushes, round_trips;
} nowhere, *probe = &nowhere;
static int (*real_fdatasync)(int), (*real_fsync)(int);
static ssize_t (*real_recv)(int, void *, size_t, int), (*real_send)(int, const void *, size_t, int);
static int answered; // since the last message from the client

__attribute__((constructor)) static void load(void) {
  const char *path = getenv("FINAIFLOW_PROBE");
  int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  void *shared = fd < 0 ? MAP_FAILED : mmap(0, sizeof *probe, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared != MAP_FAILED) probe = shared;
  if (fd >= 0) close(fd);
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_recv = dlsym(RTLD_NEXT, "recv");
  real_send = dlsym(RTLD_NEXT, "send");
}

static void delay(void) {
  int64_t us = probe->delay_us;
  struct timespec rest = {us / 1000000, us % 1000000 * 1000};
  while (us > 0 && nanosleep(&rest, &rest)) continue; // a signal cut it short
}

int fdatasync(int fd) {
  probe->flushes++;
  delay();
  return real_fdatasync(fd);
}

int fsync(int fd) {
  delay();
  return real_fsync(fd);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
  answered = 1;
  return real_send(fd, data, size, flags);
}

ssize_t recv(int fd, void *data, size_t size, int flags) {
  ssize_t got = real_recv(fd, data, size, flags);
  if (got > 0 && answered) answered = 0, probe->round_trips++;
  return got;
}
