# The image of hivebeat: one static binary on a base with no shell, run by nobody in particular.
# docker build --build-arg VERSION=v1.2.3 -t hivebeat .

FROM golang:1.26-alpine AS build
WORKDIR /src
# The modules have a layer of their own: a change of the code downloads nothing again.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath \
      -ldflags "-s -w -X github.com/beatfabric/hivebeat/internal/cli.version=${VERSION}" \
      -o /out/hivebeat ./cmd/hivebeat

FROM gcr.io/distroless/static-debian13:nonroot
COPY --from=build /out/hivebeat /usr/local/bin/hivebeat
# By number, so that a runtime which demands a non-root user can tell that it is one.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/hivebeat"]
CMD ["--help"]
