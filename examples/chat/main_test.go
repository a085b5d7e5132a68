package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
	t.Cleanup(func() { require.NoError(t, m.Close()) })
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
	require.NoError(t, os.WriteFile(filepath.Join(two, "shards.json"), []byte(`{"version":1,"epoch":1,"shards":[{"range":"-80","node":"a"},{"range":"80-","node":"b"}]}`), 0o600))
	torn := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(torn, "shards.json"), []byte(`{"version":1,"epoch":1,"shards":[{"range":"-80","node":"a"}]}`), 0o600))

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
