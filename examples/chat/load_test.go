package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheGeneratorCountsWhatFails(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "no", http.StatusInternalServerError)
	}))
	defer broken.Close()
	load := &Load{URL: broken.URL, Rate: 200, Seed: 1}
	require.Empty(t, load.trouble())
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = load.Run(ctx) })
	require.Eventually(t, func() bool { return asked.Load() >= 10 }, time.Minute, time.Millisecond)
	cancel()
	running.Wait()
	require.Equal(t, fmt.Sprintf(", %d requests failed", asked.Load()), load.trouble())
}
