// Package probe reads inference engines that know nothing of hivebeat, through the HTTP
// endpoints that they have anyway: vLLM, SGLang, llama.cpp, Ollama, TensorRT-LLM and TGI, any
// server with an OpenAI API, and by a [Mapping] any other that answers with JSON or Prometheus text.
//
// It has two halves. A [Prober] takes one reading at a time: a few GETs in sequence, which make
// the engine compute no token. A [Judge] is pure: it turns readings and failures into the state
// that a worker reports, and says when to ask again. The loop between them, with its timer and
// jitter, is the caller's:
//
//	for {
//		reading, err := prober.Read(ctx)
//		report := judge.Hear(time.Now(), reading, err)
//		… // put the report into a beat, and wait for report.Next
//	}
//
// A fact that the engine does not report is nil, never zero. Whether an engine that answers makes
// progress is not judged here: its hive does that, from busy, queue, done and tokens.
//
// The names of endpoints, keys and metrics stand beside the code that reads them, with the file,
// and the commit or version, as of November 2026.
package probe
