// The version the mock plays; a test that wants another writes this file anew.
#pragma once
#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 3
#define NV_TENSORRT_PATCH 0
