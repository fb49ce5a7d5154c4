package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	contentType = "application/cloudevents+json; charset=utf-8"
	userAgent   = "hivebeat"
	answerMost  = 16 << 10 // bytes of an answer that are read, so that the connection can be used again
	maxTimeout  = time.Minute
)

// newTransport connects to the URL itself: no proxy is taken from the environment.
func newTransport(timeout time.Duration) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    timeout,
		ResponseHeaderTimeout:  timeout,
		IdleConnTimeout:        time.Minute,
		MaxIdleConnsPerHost:    4,
		MaxConnsPerHost:        64,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// poster makes the requests to one URL.
type poster struct {
	url     *url.URL
	secrets []Secret
	client  *http.Client
}

func newPoster(cfg *Config, u *url.URL) poster {
	return poster{url: u, secrets: cfg.Secrets, client: &http.Client{
		Transport: cfg.Transport,
		Timeout:   cfg.Timeout,
		// Where else a receiver points is nobody's business: an event is sent to the
		// URL that was given, or not at all.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// failure is a request that was not answered with 2xx.
type failure struct {
	what  string        // for the log, without the URL
	after time.Duration // as the receiver asks; 0: it does not
	gone  bool          // it wants no more of it
}

// post sends one event, and returns nil where it was taken.
func (p *poster) post(ctx context.Context, id string, body []byte, now time.Time) *failure {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.String(), bytes.NewReader(body))
	if err != nil {
		return &failure{what: "the URL makes no request"}
	}
	h := r.Header
	h.Set("Content-Type", contentType)
	h.Set("User-Agent", userAgent)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	if len(p.secrets) > 0 {
		h.Set("Webhook-Signature", sign(p.secrets, id, now, body))
	}
	w, err := p.client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok { // it quotes the URL
			err = e.Err
		}
		return &failure{what: err.Error()}
	}
	defer w.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(w.Body, answerMost))
	if w.StatusCode/100 == 2 {
		return nil
	}
	f := &failure{what: fmt.Sprintf("status %d", w.StatusCode), gone: w.StatusCode == http.StatusGone}
	if w.StatusCode == http.StatusTooManyRequests || w.StatusCode == http.StatusServiceUnavailable {
		f.after = retryAfter(w.Header.Get("Retry-After"), now)
	}
	return f
}

// maxRetryAfter bounds what a receiver may ask for.
const maxRetryAfter = time.Hour

// retryAfter reads the header: seconds, or a date.
func retryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	var d time.Duration
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(s); err == nil {
		d = at.Sub(now)
	}
	return min(max(0, d), maxRetryAfter)
}

const (
	firstBackoff = time.Second
	lastBackoff  = 5 * time.Minute
)

// backoff is how long to wait after so many tries: 1 s, 2 s, 4 s … 5 min, less up
// to half of it at random, so that what failed together does not come back together.
func backoff(try int) time.Duration {
	d := lastBackoff
	if try < 10 {
		d = min(firstBackoff<<max(0, try-1), lastBackoff)
	}
	return d/2 + rand.N(d/2)
}
