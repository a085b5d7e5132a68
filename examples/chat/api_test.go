package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// Whatever was posted, to any of many channels, comes back whole and in order:
// channel by channel, in the feed, and in a search, with any switch off.
func TestWhatWasPostedIsRead(t *testing.T) {
	t.Parallel()
	m := startMain(t, func(c *Config) { c.Slow = 0 })
	rng := rand.New(rand.NewPCG(1, 1))
	want := map[string][]Message{} // by channel, the newest first
	var all, lunches []Message
	for i := range 120 {
		channel := fmt.Sprint("c", rng.IntN(12))
		text := fmt.Sprintf("message %d, 100%% \"fresh\" \U0001F600", i)
		switch {
		case i%7 == 0:
			text += ` LUNCH_x\y`
		case i%7 == 1:
			text += ` LUNCH-x\y`
		}
		msg := post(t, m, channel, fmt.Sprint("u", i), text)
		require.Equal(t, Message{ID: msg.ID, Channel: channel, User: fmt.Sprint("u", i), Text: text}, msg)
		want[channel] = append([]Message{msg}, want[channel]...)
		all = append([]Message{msg}, all...)
		if i%7 == 0 {
			lunches = append([]Message{msg}, lunches...)
		}
	}
	require.Len(t, want, 12)
	for _, off := range []string{"", "coalesce", "shard", "balance"} {
		if off != "" {
			resp := call(t, http.MethodPost, m.URL()+"/switches/"+off+"?on=false", "", "", nil)
			require.Equal(t, http.StatusNoContent, resp.StatusCode)
		}
		for channel, msgs := range want {
			require.Equal(t, msgs, pages(t, m.URL()+"/channels/"+channel+"/messages", 7), channel)
		}
		require.Equal(t, all, pages(t, m.URL()+"/feed", 50))
		require.Equal(t, lunches, pages(t, m.URL()+"/search?q=lunch_X%5cY", 5), "LIKE ignores case, and has no wildcards for users")
	}
	require.Empty(t, pages(t, m.URL()+"/channels/empty/messages", 10))
	var readers sync.WaitGroup // of different pages of one channel
	m.switches.Coalesce.Store(true)
	for i, msg := range want["c0"][1:] {
		readers.Go(func() {
			page, err := m.reader.Page(t.Context(), "c0", want["c0"][i].ID, 1)
			if err != nil || len(page) != 1 || page[0] != msg {
				t.Errorf("the page before %v: %v, %v", want["c0"][i], page, err)
			}
		})
	}
	readers.Wait()
	require.Empty(t, pages(t, m.URL()+"/search?q=lunch%25", 10))
}

func TestAWriterReadsItsOwnMessage(t *testing.T) {
	t.Parallel()
	m := startMain(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	for range 4 { // so that there nearly always is a read to join that began earlier
		readers.Go(func() {
			for ctx.Err() == nil {
				_, _ = m.reader.Page(ctx, "c", 0, 10)
			}
		})
	}
	for i := range 30 {
		msg := post(t, m, "c", fmt.Sprint("u", i), "hello")
		var p Page
		call(t, http.MethodGet, m.URL()+"/channels/c/messages", "", "", &p)
		require.Contains(t, p.Messages, msg)
	}
}

func TestConcurrentReadsShareTheDatabase(t *testing.T) {
	t.Parallel()
	m := startMain(t, nil)
	post(t, m, "c", "u", "hello")
	read := func() (loads int64) {
		before := m.reader.loads.Load()
		var readers sync.WaitGroup
		for range 50 {
			readers.Go(func() { call(t, http.MethodGet, m.URL()+"/channels/c/messages", "", "", nil) })
		}
		readers.Wait()
		return m.reader.loads.Load() - before
	}
	require.Less(t, read(), int64(50))
	m.switches.Coalesce.Store(false)
	require.Equal(t, int64(50), read())
}

func TestASpammerIsRefusedAndOthersAreNot(t *testing.T) {
	t.Parallel()
	m := startMain(t, func(c *Config) { c.Limit = ratelimit.Per(3, time.Hour) })
	statuses := func() map[int]int {
		counts := map[int]int{}
		for range 10 {
			resp := call(t, http.MethodPost, m.URL()+"/channels/c/messages", "spammer", `{"text": "x"}`, nil)
			counts[resp.StatusCode]++
			if resp.StatusCode == http.StatusTooManyRequests {
				require.NotEmpty(t, resp.Header.Get("RateLimit"))
				require.Contains(t, resp.Header.Get("RateLimit-Policy"), `"posts"`)
				require.NotEmpty(t, resp.Header.Get("Retry-After"))
				require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
			}
		}
		return counts
	}
	require.Equal(t, map[int]int{201: 3, 429: 7}, statuses())
	post(t, m, "c", "somebody", "x")
	m.switches.RateLimit.Store(false)
	require.Equal(t, map[int]int{201: 10}, statuses())
}

func TestTheSlowReplicaGetsLittle(t *testing.T) {
	t.Parallel()
	m := startMain(t, func(c *Config) { c.Slow = 50 * time.Millisecond })
	share := func() float64 {
		before := m.metrics.totals().queries
		var readers sync.WaitGroup
		for r := range 6 {
			readers.Go(func() {
				for i := range 20 {
					_, err := m.reader.Page(t.Context(), fmt.Sprintf("c%d-%d", r, i), 0, 10)
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		readers.Wait()
		after := m.metrics.totals().queries
		return float64(after[2]-before[2]) / 120
	}
	require.Less(t, share(), 0.25)
	m.switches.Balance.Store(false)
	require.InDelta(t, 1.0/3, share(), 0.02)
}

func TestBadRequestsAreAnsweredClearly(t *testing.T) {
	t.Parallel()
	m := startMain(t, nil)
	for _, c := range []struct {
		method, path, user, body string
		status                   int
		says                     string
	}{
		{"POST", "/channels/c/messages", "", `{"text": "x"}`, 400, "on whose behalf"},
		{"POST", "/channels/c/messages", "no spaces", `{"text": "x"}`, 400, "no spaces"},
		{"POST", "/channels/c%20d/messages", "u", `{"text": "x"}`, 400, "c d"},
		{"POST", "/channels/c/messages", "u", `{"text": ""}`, 400, "0 bytes"},
		{"POST", "/channels/c/messages", "u", `{"text": "` + strings.Repeat("x", maxText+1) + `"}`, 400, "4001 bytes"},
		{"POST", "/channels/c/messages", "u", `nonsense`, 400, "body"},
		{"POST", "/channels/c/messages", "u", `{"text": "` + strings.Repeat("x", 9*maxText) + `"}`, 400, "too large"},
		{"GET", "/channels/c%20d/messages", "", "", 400, "c d"},
		{"GET", "/channels/c/messages?limit=0", "", "", 400, "limit is \"0\""},
		{"GET", "/channels/c/messages?limit=101", "", "", 400, "1 to 100"},
		{"GET", "/channels/c/messages?before=x", "", "", 400, "before"},
		{"GET", "/feed?limit=x", "", "", 400, "limit"},
		{"GET", "/search", "", "", 400, "q has 0 bytes"},
		{"GET", "/search?q=" + strings.Repeat("x", 201), "", "", 400, "201"},
		{"POST", "/switches/nosuch?on=true", "", "", 404, "nosuch"},
		{"POST", "/switches/shard?on=maybe", "", "", 400, "maybe"},
		{"GET", "/source/nosuch.go", "", "", 404, ""},
		{"GET", "/source/..%2f..%2fgo.mod", "", "", 404, ""},
		{"DELETE", "/channels/c/messages", "", "", 405, ""},
		{"GET", "/nosuch", "", "", 404, ""},
	} {
		req, err := http.NewRequest(c.method, m.URL()+c.path, strings.NewReader(c.body))
		require.NoError(t, err)
		if c.user != "" {
			req.Header.Set(userHeader, c.user)
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, c.status, resp.StatusCode, "%s %s: %s", c.method, c.path, text)
		require.Contains(t, strings.ReplaceAll(string(text), `\"`, `"`), c.says, "%s %s", c.method, c.path)
	}
	require.Empty(t, pages(t, m.URL()+"/feed", 10), "nothing was stored")
}

func TestOtherSitesCannotFlipSwitches(t *testing.T) {
	t.Parallel()
	m := startMain(t, nil)
	req, err := http.NewRequest(http.MethodPost, m.URL()+"/switches/coalesce?on=false", nil)
	require.NoError(t, err)
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusForbidden, resp.StatusCode)
	require.True(t, m.switches.Coalesce.Load())
}
