//go:build unix

package testserver

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// RedisCluster is a private Redis Cluster of masters without replicas.
type RedisCluster struct {
	Nodes []*Redis
}

// StartRedisCluster starts three masters and joins them, in about two seconds, most
// of which redis-cli waits for the nodes to agree.
func StartRedisCluster(t testing.TB) *RedisCluster {
	t.Helper()
	cli, ok := program("redis-cli")
	if !ok {
		missing(t, "redis-cli", "apt-get install redis-tools, or brew install redis")
	}
	const masters = 3
	c := &RedisCluster{}
	for range masters {
		r := newRedis(t, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "1000")
		args := r.args
		r.Process, r.Port = launchOnFreePort(t, func(port int) (*Process, error) {
			// The bus has a port of its own: port+10000, the default, is past 65535 for many
			// free ports.
			r.args = append(slices.Clip(args), "--cluster-port", strconv.Itoa(freePorts(t, 1)[0]))
			return r.launch(t, port)
		})
		c.Nodes = append(c.Nodes, r)
	}
	args := append([]string{"--cluster", "create"}, c.Addrs()...)
	out := run(t, nil, c.Nodes[0].dir, cli, append(args, "--cluster-replicas", "0", "--cluster-yes")...)
	if !strings.Contains(out, "[OK] All 16384 slots covered") {
		t.Fatalf("redis-cli --cluster create: %s", out)
	}
	for _, n := range c.Nodes {
		err := n.await(func() error {
			return errors.Join(expectRedis(n.Addr(), "cluster_state:ok", "CLUSTER", "INFO"),
				expectRedis(n.Addr(), fmt.Sprintf("cluster_known_nodes:%d", masters), "CLUSTER", "INFO"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// Addrs are the hosts and ports of the nodes.
func (c *RedisCluster) Addrs() []string {
	var all []string
	for _, n := range c.Nodes {
		all = append(all, n.Addr())
	}
	return all
}
