"""Label a corpus in a store of your own (MinIO, Ceph) with a CTC model on GPUs."""

import raysp

storage = {
    "endpoint_url": "https://s3.example.org",
    "key": raysp.Env("STORAGE_KEY"),
    "secret": raysp.Env("STORAGE_SECRET"),
}
pipeline = raysp.Pipeline(
    source=raysp.Shards("s3://my-corpus/audio/**/*.parquet", id="id", audio="audio", storage_options=storage),
    steps=[
        raysp.Decode(),
        raysp.Label(
            "s3://my-corpus/models/unispeech-ctc-en",
            outputs=[raysp.Transcript()],
            # No GPU is up while the run is planned, so what depends on one is stated here.
            device="cuda",
            dtype="bfloat16",
            batch_seconds=600,
            pool=raysp.Pool(actors=(1, 16), gpus=1, cpus=2),
        ),
    ],
    sink=raysp.Parquet("s3://my-labels/first", storage_options=storage),
)
