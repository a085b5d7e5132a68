package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

// testConfig is a service on a free port, without load, whose users may post as much
// as they like.
func testConfig() Config {
	return Config{Addr: "127.0.0.1:0", Seed: 1, Limit: ratelimit.Per(1_000_000, time.Second)}
}

// startMain starts the service on a free port, without load, and closes it after
// the test.
func startMain(t *testing.T, change func(*Config)) *Main {
	t.Helper()
	config := testConfig()
	if change != nil {
		change(&config)
	}
	m := &Main{Config: config}
	require.NoError(t, m.Run(t.Context()))
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { require.NoError(t, m.Close()) }) })
	return m
}

// call makes a request and decodes the answer into out, if it is not nil.
func call(t *testing.T, method, url, user, body string, out any) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if user != "" {
		req.Header.Set(userHeader, user)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if out != nil {
		require.NoError(t, json.Unmarshal(text, out), "%s", text)
	}
	return resp
}

func post(t *testing.T, m *Main, channel, user, text string) Message {
	t.Helper()
	body, err := json.Marshal(map[string]string{"text": text})
	require.NoError(t, err)
	var msg Message
	resp := call(t, http.MethodPost, m.URL()+"/channels/"+channel+"/messages", user, string(body), &msg)
	require.Equal(t, http.StatusCreated, resp.StatusCode)
	return msg
}

// pages reads all pages of a list, the newest message first.
func pages(t *testing.T, url string, limit int) (all []Message) {
	t.Helper()
	sep := "?"
	if strings.Contains(url, "?") {
		sep = "&"
	}
	for before := ""; ; {
		var p Page
		resp := call(t, http.MethodGet, fmt.Sprintf("%s%slimit=%d&before=%s", url, sep, limit, before), "", "", &p)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		all = append(all, p.Messages...)
		require.Less(t, len(all), 10_000, "the pages do not end")
		if before = p.Next; before == "" {
			return all
		}
	}
}

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

// run as the command line does, and return what it wrote.
func runChat(t *testing.T, ctx context.Context, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(ctx, args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestWrongUseIsOneClearLineAndExit2(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	inUse := startMain(t, func(c *Config) { c.Dir = t.TempDir() }).Dir()
	two := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(two, "shards.json"), []byte(`{"epoch":1,"shards":[{"range":"-80","file":"a"},{"range":"80-","file":"b"}]}`), 0o600))
	torn := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(torn, "shards.json"), []byte(`{"epoch":1,"shards":[{"range":"-80","file":"a"}]}`), 0o600))

	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown flag":       {[]string{"-nosuch"}, "-nosuch"},
		"argument":           {[]string{"what"}, `"what"`},
		"negative load":      {[]string{"-load", "-1"}, "-load is -1"},
		"load not a number":  {[]string{"-load", "NaN"}, "-load is NaN"},
		"negative duration":  {[]string{"-for", "-1s"}, "-for is -1s"},
		"too many shards":    {[]string{"-shards", "1000"}, "-shards is 1000"},
		"webhook not a URL":  {[]string{"-webhook", "localhost"}, "-webhook is"},
		"slow too slow":      {[]string{"-slow", "1h"}, "-slow is 1h"},
		"no limit":           {[]string{"-limit", "many"}, "many"},
		"port in use":        {[]string{"-addr", busy.Addr().String()}, "address already in use"},
		"folder is a file":   {[]string{"-addr", "127.0.0.1:0", "-dir", file}, "not a directory"},
		"folder below file":  {[]string{"-addr", "127.0.0.1:0", "-dir", filepath.Join(file, "x")}, "not a directory"},
		"folder unwritable":  {[]string{"-addr", "127.0.0.1:0", "-dir", "/proc/x"}, "/proc/x"},
		"folder in use":      {[]string{"-addr", "127.0.0.1:0", "-dir", inUse}, "in use by another process"},
		"other shards":       {[]string{"-addr", "127.0.0.1:0", "-dir", two, "-shards", "4"}, "holds 2 shards"},
		"map with a gap":     {[]string{"-addr", "127.0.0.1:0", "-dir", torn}, "gap between shards"},
		"address of nothing": {[]string{"-addr", "127.0.0.1:99999"}, "99999"},
	} {
		code, stdout, stderr := runChat(t, t.Context(), append([]string{"-for", "1ns"}, c.args...)...)
		require.Equal(t, 2, code, name)
		require.Empty(t, stdout, name)
		require.Contains(t, stderr, c.says, name)
		require.Equal(t, 1, strings.Count(stderr, "\n"), "%s: %q", name, stderr)
		require.True(t, strings.HasPrefix(stderr, "chat: "), "%s: %q", name, stderr)
	}
	code, stdout, _ := runChat(t, t.Context(), "-h")
	require.Zero(t, code)
	require.Contains(t, stdout, "-load")
}

// -for ends by itself; the generator's traffic has gone through every pattern, and
// the table says so.
func TestForEndsByItselfWithASummary(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := runChat(t, t.Context(), "-addr", "127.0.0.1:0", "-for", "2s", "-load", "200")
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	var patterns []string
	for line := range strings.Lines(stdout) {
		if fields := strings.Fields(line); len(fields) > 0 {
			patterns = append(patterns, fields[0])
		}
	}
	for _, p := range []string{"coalesce", "shard", "outbox", "ratelimit", "balance"} {
		require.True(t, slices.Contains(patterns, p), "%s in\n%s", p, stdout)
	}
	require.Contains(t, stdout, "0 waiting, 0 lost")
	require.Regexp(t, `[1-9]\d* lost: their first attempt failed`, stdout)
	require.Regexp(t, `[1-9]\d* refused with a 429`, stdout)
}

func TestInterruptEndsCleanly(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Second, cancel) // what signal.NotifyContext does
	dir := t.TempDir()
	code, stdout, stderr := runChat(t, ctx, "-addr", "127.0.0.1:0", "-load", "100", "-dir", dir)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "WITHOUT IT")

	m := startMain(t, func(c *Config) { c.Dir = dir })
	require.NotEmpty(t, pages(t, m.URL()+"/feed", 100))
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

func TestATemporaryFolderIsRemoved(t *testing.T) {
	t.Parallel()
	m := &Main{Config: testConfig()}
	require.NoError(t, m.Run(t.Context()))
	require.DirExists(t, m.Dir())
	require.NoError(t, m.Close())
	require.NoDirExists(t, m.Dir())
}
