package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A second start on the same folder goes on from the first: messages are there, IDs
// grow, and webhooks that waited arrive.
func TestASecondStartGoesOn(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a new folder? #1 100%41") // which is no way to write a URL
	nobody, err := net.Listen("tcp", "127.0.0.1:0")              // a receiver that is down
	require.NoError(t, err)
	require.NoError(t, nobody.Close())

	config := testConfig()
	config.Dir, config.Shards, config.Webhook = dir, 3, "http://"+nobody.Addr().String()
	m := &Main{Config: config}
	require.NoError(t, m.Run(t.Context()))
	first := post(t, m, "c", "u", "before")
	_, err = m.store.home("c").db.Exec(`UPDATE messages SET id = id + 1000000000000`) // as if the clock were set back
	require.NoError(t, err)
	first.ID += 1000000000000
	require.NoError(t, m.Close())
	require.Zero(t, m.webhooks.delivered.Load())

	again := startMain(t, func(c *Config) { c.Dir = dir })
	require.Equal(t, 3, again.store.shards.Len())
	second := post(t, again, "c", "u", "after")
	require.Greater(t, second.ID, first.ID)
	require.Equal(t, []Message{second, first}, pages(t, again.URL()+"/channels/c/messages", 10))
	require.Eventually(t, func() bool { return again.webhooks.delivered.Load() == 2 }, 30*time.Second, 10*time.Millisecond)
}

func TestAPartThatFailsIsReported(t *testing.T) {
	t.Parallel()
	m := startMain(t, nil)
	require.NoError(t, m.listener.Close())
	require.ErrorContains(t, <-m.Failed(), "closed")
}

func TestAPageThatIsOpenDoesNotKeepTheServiceFromEnding(t *testing.T) {
	t.Parallel()
	m := &Main{Config: testConfig()}
	require.NoError(t, m.Run(t.Context()))
	resp, err := http.Get(m.URL() + "/events")
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.ReadFull(resp.Body, make([]byte, len("event: sample")))
	require.NoError(t, err)
	require.NoError(t, m.Close())
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err, "the stream has an orderly end")
}

func TestCloseLetsARequestFinish(t *testing.T) {
	t.Parallel()
	m := &Main{Config: testConfig()}
	require.NoError(t, m.Run(t.Context()))
	body, rest := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, m.URL()+"/channels/c/messages", body)
	require.NoError(t, err)
	req.Header.Set(userHeader, "u")
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		if resp, err := http.DefaultClient.Do(req); assert.NoError(t, err) {
			assert.Equal(t, http.StatusCreated, resp.StatusCode)
			assert.NoError(t, resp.Body.Close())
		}
	})
	_, err = rest.Write([]byte(`{"text": `))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return m.api.admitted.Load() == 1 }, 10*time.Second, time.Millisecond)
	running.Go(func() { assert.NoError(t, m.Close()) })
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", m.listener.Addr().String())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, 10*time.Second, time.Millisecond, "there are no new requests")
	_, err = rest.Write([]byte(`"late"}`))
	require.NoError(t, err)
	require.NoError(t, rest.Close())
}

// Close waits for the webhooks: here the receiver answers the first only when there
// are no more requests, and the second comes after it.
func TestCloseDrainsTheOutbox(t *testing.T) {
	t.Parallel()
	arrived, answer := make(chan struct{}, 2), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-answer
	}))
	defer slow.Close()
	m := &Main{Config: testConfig()}
	m.Config.Webhook = slow.URL
	require.NoError(t, m.Run(t.Context()))
	post(t, m, "c", "u", "one")
	post(t, m, "c", "u", "two")
	<-arrived
	var closing sync.WaitGroup
	closing.Go(func() { assert.NoError(t, m.Close()) })
	<-m.serving.done
	close(answer)
	closing.Wait()
	require.Equal(t, int64(2), m.webhooks.delivered.Load())
}

func TestATemporaryFolderIsRemoved(t *testing.T) {
	t.Parallel()
	m := &Main{Config: testConfig()}
	require.NoError(t, m.Run(t.Context()))
	require.DirExists(t, m.Dir())
	require.NoError(t, m.Close())
	require.NoDirExists(t, m.Dir())
}
