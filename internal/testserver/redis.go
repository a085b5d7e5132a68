//go:build unix

package testserver

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Redis is a private Redis server without persistence: after Kill and Restart it is
// empty.
type Redis struct {
	*Process
	Port int

	bin, dir string
	args     []string
}

// StartRedis starts a server, in some 20 ms. The args are further arguments of
// redis-server.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	r := newRedis(t, args...)
	r.Process, r.Port = launchOnFreePort(t, func(port int) (*Process, error) { return r.launch(t, port) })
	return r
}

func newRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	bin, ok := program("redis-server") // the link itself: the program looks at the name by which it is called
	if !ok {
		missing(t, "Redis", "apt-get install redis-server, or brew install redis")
	}
	dir := tempDir(t, nil)
	return &Redis{bin: bin, dir: dir, args: append([]string{
		"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", dir,
	}, args...)}
}

func (r *Redis) launch(t testing.TB, port int) (*Process, error) {
	return launch(t, spec{
		bin: r.bin, args: append([]string{"--port", strconv.Itoa(port)}, r.args...), dir: r.dir, stop: syscall.SIGTERM,
		ready: func() error { return expectRedis(addr(port), "PONG", "PING") },
	})
}

// Addr is the server's host and port.
func (r *Redis) Addr() string { return addr(r.Port) }

// Restart starts the server again after Stop or Kill, empty, on the same port.
func (r *Redis) Restart(t testing.TB) {
	t.Helper()
	r.Process = relaunch(t, func() (*Process, error) { return r.launch(t, r.Port) })
}

// Do runs one command, for a test that needs no client, and returns the reply as
// text: of a number or a string, not of an array.
func (r *Redis) Do(t testing.TB, args ...string) string {
	t.Helper()
	reply, err := redisDo(r.Addr(), args...)
	if err != nil {
		t.Fatalf("redis %q: %v", args, err)
	}
	return reply
}

// redisDo runs one command on a connection of its own.
func redisDo(address string, args ...string) (string, error) {
	return redisDoIn(address, 0, args...)
}

// redisDoIn is redisDo in one of the server's numbered databases.
func redisDoIn(address string, db int, args ...string) (string, error) {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	in := bufio.NewReader(c)
	if db != 0 {
		if _, err := redisCommand(c, in, "SELECT", strconv.Itoa(db)); err != nil {
			return "", err
		}
	}
	return redisCommand(c, in, args...)
}

// redisCommand writes a command and reads its reply.
func redisCommand(c io.Writer, in *bufio.Reader, args ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		return "", err
	}
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, text := line[0], strings.TrimSuffix(line[1:], "\r\n")
	switch kind {
	case '+', ':':
		return text, nil
	case '-':
		return "", fmt.Errorf("redis: %s", text)
	case '$':
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return "", err // -1 is nil
		}
		value := make([]byte, n+2)
		_, err = io.ReadFull(in, value)
		return string(value[:n]), err
	default:
		return "", fmt.Errorf("redis: reply %q is of a kind that this client does not read", line)
	}
}

// expectRedis is nil if the reply contains want.
func expectRedis(address, want string, args ...string) error {
	reply, err := redisDo(address, args...)
	if err == nil && !strings.Contains(reply, want) {
		err = fmt.Errorf("redis: %q says %q, expected %q", args, reply, want)
	}
	return err
}
