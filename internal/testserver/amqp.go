//go:build unix

package testserver

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"testing"
	"time"
)

// localAMQP is where RabbitMQ listens after its package was installed and started.
const localAMQP = "amqp://guest:guest@127.0.0.1:5672/"

// AMQPURL is the URL of the RabbitMQ server that EVENKEEL_AMQP_URL names, or of the
// local one. It is shared: the names of queues are the test's business. RabbitMQ
// takes seconds to start and a port for its nodes' names, so there are no private
// ones.
func AMQPURL(t testing.TB) string {
	t.Helper()
	if named := os.Getenv("EVENKEEL_AMQP_URL"); named != "" {
		if err := pingAMQP(named); err != nil {
			t.Fatalf("EVENKEEL_AMQP_URL: %v", err)
		}
		return named
	}
	if err := pingAMQP(localAMQP); err != nil {
		missing(t, fmt.Sprintf("RabbitMQ (%v)", err), "apt-get install rabbitmq-server and rabbitmq-server -detached, or set EVENKEEL_AMQP_URL")
	}
	return localAMQP
}

// pingAMQP offers AMQP 0-9-1 and waits for the server to start a connection with a
// method frame.
func pingAMQP(rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return err
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "5672")
	}
	c, err := net.DialTimeout("tcp", host, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	var frame [1]byte
	if _, err := io.ReadFull(c, frame[:]); err != nil {
		return err
	}
	if frame[0] != 1 {
		return fmt.Errorf("%s does not speak AMQP 0-9-1", host)
	}
	return nil
}
