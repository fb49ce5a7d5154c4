# Two images of hivebeat, run by nobody in particular, on bases with no shell.
#
#   docker build -t hivebeat .                   queens, workers, hives of machines without GPUs: one static binary
#   docker build --target gpu -t hivebeat:gpu .  hives of machines with GPUs: glibc, which nvidia-smi and NVML need
#
# --build-arg VERSION=v1.2.3 sets the version. A builder other than BuildKit builds all stages
# before the one that it was asked for: --target static leaves out those of the second image.

FROM golang:1.26-bookworm AS build
WORKDIR /src
# The modules have a layer of their own: a change of the code downloads nothing again.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath \
      -ldflags "-s -w -X github.com/beatfabric/hivebeat/internal/cli.version=${VERSION}" \
      -o /out/hivebeat ./cmd/hivebeat

FROM gcr.io/distroless/static-debian13:nonroot AS static
COPY --from=build /out/hivebeat /usr/local/bin/hivebeat
# By number, so that a runtime which demands a non-root user can tell that it is one.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/hivebeat"]
CMD ["--help"]

# With cgo: NVML is opened with dlopen when there is a driver, so this binary runs without
# one too. The build needs an older glibc than the base below, or the same.
FROM build AS build-gpu
ARG VERSION=dev
RUN CGO_ENABLED=1 go build -trimpath \
      -ldflags "-s -w -X github.com/beatfabric/hivebeat/internal/cli.version=${VERSION}" \
      -o /out/hivebeat-gpu ./cmd/hivebeat

FROM gcr.io/distroless/base-nossl-debian13:nonroot AS gpu
COPY --from=build-gpu /out/hivebeat-gpu /usr/local/bin/hivebeat
# What NVIDIA's container runtime reads: all GPUs, and of the driver only nvidia-smi and NVML.
# It puts them into /usr/bin and the library folder of Debian, and runs the host's ldconfig.
# Device plugins that mount a folder of the host instead (GKE) use /usr/local/nvidia.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=utility \
    PATH=/usr/local/nvidia/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/lib64
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/hivebeat"]
CMD ["--help"]

# What a build without --target makes.
FROM static
