package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Load is a generator of traffic over real HTTP. It is open-loop: requests start
// when their time has come, whether or not earlier ones have returned, as those of
// independent people do. One seed gives one sequence of requests.
//
// The traffic has the shape of a chat: channels after Zipf's law, nine reads to a
// post, one user who posts about as much as all others together, and every half
// second an announcement in the busiest channel that makes many open it at once.
type Load struct {
	URL  string
	Rate float64 // requests per second, without the announcements, which are 0.4 of it on top
	Seed uint64

	client   *http.Client
	rng      *rand.Rand
	announce *rand.Rand // its own, since the two interleave as the clock will have it
	channel  *rand.Zipf

	running sync.WaitGroup
	flying  atomic.Int64
	failed  atomic.Int64 // requests that failed, other than by a 429
	skipped atomic.Int64 // requests not made, since too many were on their way
}

const (
	loadChannels  = 1000
	loadUsers     = 200
	loadMost      = 1000 // requests on their way at once
	announceEvery = 500 * time.Millisecond
	loadTick      = 5 * time.Millisecond
	spammer       = "spammer"
)

// Run makes requests until ctx ends, and returns when the last has returned.
func (l *Load) Run(ctx context.Context) error {
	l.rng, l.announce = rand.New(rand.NewPCG(l.Seed, 1)), rand.New(rand.NewPCG(l.Seed, 3))
	l.channel = rand.NewZipf(l.rng, 1.1, 1, loadChannels-1)
	l.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: loadMost, MaxConnsPerHost: loadMost}}
	defer l.client.CloseIdleConnections()
	defer l.running.Wait()

	tick := time.NewTicker(loadTick)
	defer tick.Stop()
	started := time.Now()
	var made, announced int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		elapsed := time.Since(started)
		for ; made < int64(elapsed.Seconds()*l.Rate); made++ {
			l.request()
		}
		for ; announced < int64(elapsed/announceEvery); announced++ {
			l.announcement()
		}
	}
}

// request starts the next request of the sequence.
func (l *Load) request() {
	channel := fmt.Sprint("channel-", l.channel.Uint64())
	user := fmt.Sprint("user-", l.rng.IntN(loadUsers))
	switch dice := l.rng.IntN(100); {
	case dice < 80:
		l.start(http.MethodGet, "/channels/"+channel+"/messages?limit=50", "", "")
	case dice < 82:
		l.start(http.MethodGet, "/feed?limit=20", "", "")
	case dice < 83:
		l.start(http.MethodGet, "/search?limit=20&q=lunch", "", "")
	case dice < 92:
		l.start(http.MethodPost, "/channels/"+channel+"/messages", user, phrase(l.rng))
	default:
		l.start(http.MethodPost, "/channels/"+channel+"/messages", spammer, "BUY NOW")
	}
}

// announcement posts in the busiest channel, and everybody comes to read.
func (l *Load) announcement() {
	user := fmt.Sprint("user-", l.announce.IntN(loadUsers))
	l.start(http.MethodPost, "/channels/channel-0/messages", user, "@everyone "+phrase(l.announce))
	for range int(l.Rate / 5) {
		l.start(http.MethodGet, "/channels/channel-0/messages?limit=50", "", "")
	}
}

func phrase(rng *rand.Rand) string {
	texts := []string{"good morning", "anyone for lunch?", "the build is green", "see you tomorrow", "who broke the build?", "nice!"}
	return texts[rng.IntN(len(texts))]
}

// start makes a request on a goroutine of its own, which ends at the client's
// time-out at the latest.
func (l *Load) start(method, path, user, text string) {
	if l.flying.Load() >= loadMost {
		l.skipped.Add(1)
		return
	}
	l.flying.Add(1)
	l.running.Go(func() {
		defer l.flying.Add(-1)
		if err := l.do(method, path, user, text); err != nil {
			l.failed.Add(1)
		}
	})
}

func (l *Load) do(method, path, user, text string) error {
	var body []byte
	if method == http.MethodPost {
		body, _ = json.Marshal(map[string]string{"text": text}) // of strings; that does not fail
	}
	req, err := http.NewRequest(method, l.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if user != "" {
		req.Header.Set(userHeader, user)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= 400 && resp.StatusCode != http.StatusTooManyRequests {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

// trouble says what of the traffic did not come off, and is empty if all did.
func (l *Load) trouble() (text string) {
	if l == nil {
		return ""
	}
	if n := l.failed.Load(); n > 0 {
		text += fmt.Sprintf(", %d requests failed", n)
	}
	if n := l.skipped.Load(); n > 0 {
		text += fmt.Sprintf(", %d were not made: %d were on their way", n, loadMost)
	}
	return text
}
