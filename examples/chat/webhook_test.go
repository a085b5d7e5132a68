package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEveryWebhookArrivesInItsChannelsOrder(t *testing.T) {
	t.Parallel()
	m := startMain(t, nil) // with the built-in receiver, which refuses one in five
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 25 {
				post(t, m, fmt.Sprint("c", i%5), fmt.Sprintf("u%d-%d", w, i), "hello")
			}
		})
	}
	writers.Wait()
	require.Eventually(t, func() bool { return m.webhooks.delivered.Load() == 100 }, 30*time.Second, 10*time.Millisecond)
	require.Positive(t, m.webhooks.failed.Load(), "some had to be tried again")
	require.Zero(t, m.receiver.Repeated())
	require.Zero(t, m.webhooks.lost.Load())
}

func TestWithoutTheOutboxFailedWebhooksAreLost(t *testing.T) {
	t.Parallel()
	m := startMain(t, nil)
	m.switches.Outbox.Store(false)
	for i := range 60 {
		post(t, m, "c", fmt.Sprint("u", i), "hello")
	}
	m.webhooks.Wait()
	require.Positive(t, m.webhooks.lost.Load())
	require.Equal(t, int64(60), m.webhooks.lost.Load()+m.webhooks.delivered.Load())
}

// A redirect of a POST is followed with a GET, which delivers nothing.
func TestARedirectedWebhookIsNotDelivered(t *testing.T) {
	t.Parallel()
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/old" {
			http.Redirect(w, r, "/new", http.StatusFound)
		}
	}))
	defer moved.Close()
	m := startMain(t, func(c *Config) { c.Webhook = moved.URL + "/old" })
	m.switches.Outbox.Store(false)
	post(t, m, "c", "u", "hello")
	m.webhooks.Wait()
	require.Equal(t, int64(1), m.webhooks.lost.Load())
}
