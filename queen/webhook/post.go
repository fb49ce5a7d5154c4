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
	answerMost  = 16 << 10 // bytes read of an answer, so that the connection can be reused
	maxTimeout  = time.Minute
)

// newTransport connects to the URL directly; it takes no proxy from the environment.
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

// poster sends the requests to one URL.
type poster struct {
	url     *url.URL
	secrets []Secret
	client  *http.Client
}

func newPoster(cfg *Config, u *url.URL) poster {
	return poster{url: u, secrets: cfg.Secrets, client: &http.Client{
		Transport: cfg.Transport,
		Timeout:   cfg.Timeout,
		// Redirects are not followed: an event goes to the configured URL or nowhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// failure describes a request that was not answered with 2xx.
type failure struct {
	what  string        // the error, for the log, without the URL
	after time.Duration // wait requested by the receiver; 0 if none
	gone  bool          // the receiver wants no more attempts
}

// post sends one event, and returns nil if the receiver accepted it.
func (p *poster) post(ctx context.Context, id string, body []byte, now time.Time) *failure {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.String(), bytes.NewReader(body))
	if err != nil {
		return &failure{what: "cannot build a request from the URL"}
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
		if e, ok := errors.AsType[*url.Error](err); ok { // url.Error quotes the URL
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

// maxRetryAfter bounds the wait that a receiver may request.
const maxRetryAfter = time.Hour

// retryAfter parses the header: seconds, or a date.
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

// backoff returns how long to wait after a number of tries: 1 s, 2 s, 4 s … 5 min,
// minus up to half at random, so that events that failed together are not retried
// together.
func backoff(try int) time.Duration {
	d := lastBackoff
	if try < 10 {
		d = min(firstBackoff<<max(0, try-1), lastBackoff)
	}
	return d/2 + rand.N(d/2)
}
