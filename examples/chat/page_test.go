package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit"
)

func TestEveryCardLinksToTheLineOfItsPattern(t *testing.T) {
	t.Parallel()
	all, err := cards(4)
	require.NoError(t, err)
	require.Len(t, all, 5)
	for _, c := range all {
		text, err := sources.ReadFile(c.File)
		require.NoError(t, err)
		line := strings.Split(string(text), "\n")[c.Line-1]
		require.Regexp(t, regexp.MustCompile(`^func `), line, "%s:%d", c.File, c.Line)
	}
}

func TestThePageIsWholeWithoutANetwork(t *testing.T) {
	t.Parallel()
	m := startMain(t, nil)
	for path, kind := range map[string]string{
		"/": "text/html", "/app.js": "text/javascript", "/style.css": "text/css", "/source/reads.go": "text/html",
	} {
		resp := call(t, http.MethodGet, m.URL()+path, "", "", nil)
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		require.True(t, strings.HasPrefix(resp.Header.Get("Content-Type"), kind), "%s is %s", path, resp.Header.Get("Content-Type"))
	}
	for _, file := range []string{"web/index.html", "web/app.js", "web/style.css"} {
		text, err := webFiles.ReadFile(file)
		require.NoError(t, err)
		foreign := strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", "") // a name, not an address
		require.NotContains(t, foreign, "http", file)
	}
}

// browser starts a headless Chromium, or skips.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		const hint = "chromium is missing: apt-get install chromium"
		if os.Getenv("EVENKEEL_REQUIRE") != "" {
			t.Fatal(hint)
		}
		t.Skip(hint)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 900), chromedp.Flag("disable-quic", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// The page does what its sentences say: each switch is turned off, and the number
// beside it moves.
func TestTurningAPatternOffMovesItsNumber(t *testing.T) { // not beside others: it needs a machine that keeps up
	ctx := browser(t)
	m := startMain(t, func(c *Config) {
		c.Load, c.Slow, c.Limit = 250, 100*time.Millisecond, ratelimit.Per(1, time.Second)
		if raceEnabled {
			c.Load = 20 // SQLite is Go, and ten times slower under the race detector
		}
	})
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(m.URL()+"/")))
	// until waits for a condition on the page. The limit is generous: the machine may
	// be busy.
	until := func(js string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		err := chromedp.Do(ctx, chromedp.Poll[chromedp.Void](js))
		if err != nil {
			text, _ := chromedp.Run(context.WithoutCancel(ctx), chromedp.Text("body"))
			t.Fatalf("%s: %v; the page says:\n%s", js, err, text)
		}
	}
	number := func(card string) string {
		return `Number(document.querySelector('[data-testid="number-` + card + `"]').textContent)`
	}
	click := func(name string) {
		t.Helper()
		require.NoError(t, chromedp.Do(ctx, chromedp.Click(`[data-testid="switch-`+name+`"]`)))
	}
	checked := func(name, value string) string {
		return `document.querySelector('[data-testid="switch-` + name + `"]').getAttribute("aria-checked") === "` + value + `"`
	}
	until(`Number(document.documentElement.dataset.samples) >= 6`)

	until(number("coalesce") + ` < 95`)
	click("coalesce")
	until(checked("coalesce", "false"))
	until(number("coalesce") + ` === 100`)
	click("coalesce")
	until(number("coalesce") + ` < 95`)

	until(number("shard") + ` === 1`)
	click("shard")
	until(number("shard") + ` === 4`)
	click("shard")

	until(number("outbox") + ` === 0`)
	click("outbox")
	until(number("outbox") + ` > 0`)
	click("outbox")

	until(number("ratelimit") + ` > 0`)
	click("ratelimit")
	until(number("ratelimit") + ` === 0`)

	// How little the slow replica gets, and not how fast the queries are: that is also
	// the machine's business.
	share := `Number(document.getElementById("balance-legend").textContent.match(/#3 ([0-9.]+)/)[1])`
	until(share + ` < 20`)
	click("balance")
	until(share + ` > 30`)
	until(number("balance") + ` >= 100`)
	click("balance")
	until(share + ` < 20`)
	// With the third replica as fast as the others there is nothing to balance.
	click("slow")
	until(checked("slow", "false"))
	require.False(t, m.switches.Slow.Load())
	until(share + ` > 25`)

	// A picture for each series, and words for those who cannot see it.
	until(`document.querySelectorAll("#coalesce-chart polyline").length === 2`)
	until(`document.querySelectorAll("#shard-chart rect").length === 4`)
	until(`/reads\/s [0-9]/.test(document.getElementById("coalesce-chart").getAttribute("aria-label"))`)
}
