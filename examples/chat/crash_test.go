package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// childEnv makes the test program run as the chat itself.
const childEnv = "EVENKEEL_CHAT_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// startChild runs the chat as a process of its own and returns it with its URL.
func startChild(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-addr", "127.0.0.1:0", "-load", "0"}, args...)...)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	_, rest, ok := strings.Cut(line, "listening on ")
	require.True(t, ok, line)
	url, _, _ := strings.Cut(rest, ",")
	return cmd, url
}

// receiver notes the IDs of the webhooks that arrive, in order, by channel.
type receiver struct {
	mu      sync.Mutex
	seen    map[int64]bool
	newest  map[string]int64
	swapped int // first deliveries that came after a newer one of their channel
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var m Message
	if err := json.NewDecoder(req.Body).Decode(&m); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.seen[m.ID] && m.ID < r.newest[m.Channel] {
		r.swapped++
	}
	r.seen[m.ID] = true
	r.newest[m.Channel] = max(r.newest[m.Channel], m.ID)
}

// The service is killed with SIGKILL again and again while clients write. Whatever
// it acknowledged is there after the next start, and its webhook arrives.
func TestKillLosesNothingThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	hooks := &receiver{seen: map[int64]bool{}, newest: map[string]int64{}}
	server := httptest.NewServer(hooks)
	defer server.Close()
	dir := t.TempDir()

	rounds, writers := 4, 4
	if raceEnabled {
		rounds = 2
	}
	acknowledged := map[string][]Message{} // by channel
	var mu sync.Mutex
	for round := range rounds {
		cmd, url := startChild(t, "-dir", dir, "-webhook", server.URL)
		var running sync.WaitGroup
		enough := make(chan struct{})
		var count int
		for w := range writers {
			running.Go(func() {
				for i := 0; ; i++ {
					channel := fmt.Sprintf("c%d", (w+i)%7)
					req, err := http.NewRequest(http.MethodPost, url+"/channels/"+channel+"/messages", strings.NewReader(`{"text": "hello"}`))
					if err != nil {
						t.Error(err)
						return
					}
					req.Header.Set(userHeader, fmt.Sprintf("u%d-%d-%d", round, w, i)) // nobody is over the limit
					resp, err := http.DefaultClient.Do(req)
					if err != nil {
						return // it was killed
					}
					var msg Message
					err = json.NewDecoder(resp.Body).Decode(&msg)
					_ = resp.Body.Close()
					if resp.StatusCode != http.StatusCreated || err != nil {
						return
					}
					mu.Lock()
					acknowledged[channel] = append(acknowledged[channel], msg)
					if count++; count == 150+30*round {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough: // in the middle of the writes
		case <-time.After(time.Minute):
			t.Error("the service stopped acknowledging")
		}
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		running.Wait()
	}

	m := startMain(t, func(c *Config) { c.Dir, c.Webhook = dir, server.URL })
	total := 0
	for channel, msgs := range acknowledged {
		stored := map[int64]Message{}
		for _, msg := range pages(t, m.URL()+"/channels/"+channel+"/messages", 100) {
			stored[msg.ID] = msg
		}
		for _, msg := range msgs {
			require.Equal(t, msg, stored[msg.ID], "acknowledged, and not there")
		}
		total += len(msgs)
	}
	require.GreaterOrEqual(t, total, rounds*150)
	require.Eventually(t, func() bool {
		hooks.mu.Lock()
		defer hooks.mu.Unlock()
		for _, msgs := range acknowledged {
			for _, msg := range msgs {
				if !hooks.seen[msg.ID] {
					return false
				}
			}
		}
		return true
	}, time.Minute, 20*time.Millisecond, "every acknowledged message's webhook arrived")
	hooks.mu.Lock()
	defer hooks.mu.Unlock()
	require.Zero(t, hooks.swapped, "in the order of their channel")
}
