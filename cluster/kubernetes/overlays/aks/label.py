"""Label the bundled digits, from Azure Blob Storage and back, on CPUs."""

import raysp

storage = {"connection_string": raysp.Env("STORAGE_CONNECTION")}
pipeline = raysp.Pipeline(
    source=raysp.Shards("az://my-corpus/demo/audio/*.parquet", id="id", audio="audio", storage_options=storage),
    steps=[
        raysp.Decode(),
        raysp.Label(
            "az://my-corpus/demo/unispeech-digits-ctc",
            outputs=[raysp.Transcript()],
            device="cpu",
            pool=raysp.Pool(actors=(1, 4), cpus=4),
        ),
    ],
    sink=raysp.Parquet("az://my-corpus/labels/first", storage_options=storage),
)
