"""Label the bundled digits, from a store within the cluster and back, on CPUs."""

import raysp

storage = {
    "endpoint_url": "http://raysp-minio:9000",
    "key": raysp.Env("STORAGE_KEY"),
    "secret": raysp.Env("STORAGE_SECRET"),
}
pipeline = raysp.Pipeline(
    source=raysp.Shards("s3://my-corpus/demo/audio/*.parquet", id="id", audio="audio", storage_options=storage),
    steps=[
        raysp.Decode(),
        raysp.Label(
            "s3://my-corpus/demo/unispeech-digits-ctc",
            outputs=[raysp.Transcript()],
            device="cpu",
            pool=raysp.Pool(actors=1, cpus=1),
        ),
    ],
    sink=raysp.Parquet("s3://my-labels/first", storage_options=storage),
)
