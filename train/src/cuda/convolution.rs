//! Convolutions by cuDNN's graph interface: each shape and direction is planned once, then run.
//!
//! A plan is the first of cuDNN's own ranking that can be built, gives equal bits for equal inputs, and in `f32` does not
//! round its inputs. Nothing is timed, so that the same machine always makes the same choice and a resumed run repeats.
//!
//! SAFETY of this module: descriptors are made by [`Descriptor::new`] and live in what uses them; each attribute is given
//! with the type and count that cuDNN's documentation states for it.

use super::device::{Address, Convolution, Direction};
use super::fail;
use crate::Result;
use crate::config::Precision;
use cudarc::cudnn::result::CudnnError;
use cudarc::cudnn::sys::{self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type};
use cudarc::driver::{result as driver, sys::CUstream};
use std::collections::HashMap;
use std::ffi::c_void;

use sys::cudnnBackendDescriptorType_t as Kind;
use sys::cudnnBackendHeurMode_t as Ranking;
use sys::cudnnBackendNumericalNote_t as Note;

/// Oldest version that this is written for.
const OLDEST: usize = 90_000;
/// Candidates that are asked for.
const CANDIDATES: usize = 32;
/// Largest workspace of a plan, bytes.
const WORKSPACE: i64 = 1 << 30;

/// Plans by direction and shape, and the workspace they share.
pub(super) struct Convolutions {
    handle: sys::cudnnHandle_t,
    stream: CUstream,
    precision: Precision,
    plans: HashMap<(Direction, Convolution), Plan>,
    workspace: (Address, usize),
}

/// How one convolution is computed.
struct Plan {
    plan: Descriptor,
    /// What the plan was made from; it refers to them.
    _parts: Vec<Descriptor>,
    workspace: usize,
}

impl Convolutions {
    /// Opens cuDNN on a stream.
    ///
    /// # Errors
    /// When it does not start. The library must be present.
    pub fn open(stream: CUstream, precision: Precision) -> Result<Self> {
        // SAFETY: asks for a number.
        let version = unsafe { sys::cudnnGetVersion() };
        if version < OLDEST {
            return Err(fail("cuDNN", format!("is of version number {version}; {OLDEST} (9.0) or newer is needed")));
        }
        let mut handle = std::ptr::null_mut();
        // SAFETY: the handle is written by the first call and used by the second; the two stream types name the same
        // thing.
        unsafe {
            sys::cudnnCreate(&mut handle).result().map_err(of_cudnn)?;
            sys::cudnnSetStream(handle, stream.cast()).result().map_err(of_cudnn)?;
        }
        Ok(Self { handle, stream, precision, plans: HashMap::new(), workspace: (0, 0) })
    }

    /// Computes one of a convolution's three, planning it first where it is new.
    ///
    /// # Errors
    /// When cuDNN has no way to compute it, or fails.
    pub fn run(&mut self, direction: Direction, shape: &Convolution, from: [Address; 2], to: Address) -> Result<()> {
        let key = (direction, *shape);
        if !self.plans.contains_key(&key) {
            let plan = self.plan(direction, shape)?;
            self.reserve(plan.workspace)?;
            self.plans.insert(key, plan);
        }
        let plan = &self.plans[&key];
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?;
        let pointers = [from[0], from[1], to].map(|address| address as *mut c_void);
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, Type::CUDNN_TYPE_INT64, &[1i64, 2, 3])?;
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Type::CUDNN_TYPE_VOID_PTR, &pointers)?;
        let workspace = [self.workspace.0 as *mut c_void];
        pack.set(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, Type::CUDNN_TYPE_VOID_PTR, &workspace)?;
        pack.finish()?;
        // SAFETY: see the module's first paragraph; the memory is the caller's to get right.
        unsafe { sys::cudnnBackendExecute(self.handle, plan.plan.0, pack.0) }.result().map_err(of_cudnn)
    }

    /// Makes the shared workspace large enough. What is under way ends first: it may be using the old one.
    fn reserve(&mut self, bytes: usize) -> Result<()> {
        if bytes <= self.workspace.1 {
            return Ok(());
        }
        let of_driver = |e| fail("memory", format!("a workspace of {bytes} bytes cannot be had ({e:?})"));
        // SAFETY: the old one came from here and is not in use after the synchronisation.
        unsafe {
            driver::stream::synchronize(self.stream).map_err(of_driver)?;
            if self.workspace.1 > 0 {
                driver::free_sync(self.workspace.0).map_err(of_driver)?;
                self.workspace = (0, 0);
            }
            self.workspace = (driver::malloc_sync(bytes).map_err(of_driver)?, bytes);
        }
        Ok(())
    }

    fn plan(&self, direction: Direction, shape: &Convolution) -> Result<Plan> {
        let mut parts = operation(direction, shape, self.precision)?;
        let operation = parts.last().map_or(std::ptr::null_mut(), |last| last.0);
        let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?;
        graph.set(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &[operation])?;
        graph.set(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, Type::CUDNN_TYPE_HANDLE, &[self.handle])?;
        graph.finish()?;
        for ranking in [Ranking::CUDNN_HEUR_MODE_A, Ranking::CUDNN_HEUR_MODE_FALLBACK] {
            for engine in ranked(&graph, ranking)? {
                let Some((plan, workspace)) = self.build(&engine)? else { continue };
                parts.extend([graph, engine]);
                return Ok(Plan { plan, _parts: parts, workspace });
            }
        }
        Err(fail("cuDNN", format!("has no way to compute {direction:?} of {shape:?} in {:?}", self.precision)))
    }

    /// The plan of an engine, where it is allowed, can be built and needs no more than the limit of workspace.
    fn build(&self, configuration: &Descriptor) -> Result<Option<(Descriptor, usize)>> {
        let notes = notes(configuration)?;
        let forbidden = |note: &Note| match note {
            Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC => true,
            Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS | Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE => {
                self.precision == Precision::F32
            }
            _ => false,
        };
        if notes.iter().any(forbidden) {
            return Ok(None);
        }
        let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?;
        plan.set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Type::CUDNN_TYPE_HANDLE, &[self.handle])?;
        let engine = [configuration.0];
        plan.set(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &engine)?;
        if plan.finish().is_err() {
            return Ok(None);
        }
        let mut workspace = [0i64];
        plan.get(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, Type::CUDNN_TYPE_INT64, &mut workspace)?;
        Ok((workspace[0] <= WORKSPACE).then_some((plan, workspace[0].max(0) as usize)))
    }
}

impl Drop for Convolutions {
    fn drop(&mut self) {
        self.plans.clear();
        // SAFETY: nothing uses the workspace or the handle after the synchronisation. An error cannot be helped here.
        unsafe {
            let _ = driver::stream::synchronize(self.stream);
            if self.workspace.1 > 0 {
                let _ = driver::free_sync(self.workspace.0);
            }
            let _ = sys::cudnnDestroy(self.handle);
        }
    }
}

/// The descriptors of one operation, itself last. Its operands are numbered: inputs 1 and 2, result 3.
pub(super) fn operation(direction: Direction, shape: &Convolution, precision: Precision) -> Result<Vec<Descriptor>> {
    let (height, width) = shape.sides();
    let x = [shape.rows, shape.input, shape.height, shape.width];
    let y = [shape.rows, shape.output, height, width];
    let w = [shape.output, shape.input / shape.groups, shape.kernel, shape.kernel];
    let [x_id, w_id, y_id] = match direction {
        Direction::Forward => [1, 2, 3],
        Direction::Input => [3, 2, 1],
        Direction::Weights => [1, 3, 2],
    };
    let (x, w, y) = (tensor(x_id, x, precision)?, tensor(w_id, w, precision)?, tensor(y_id, y, precision)?);

    let how = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?;
    let float = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
    how.set(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[float])?;
    let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    how.set(Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE, Type::CUDNN_TYPE_CONVOLUTION_MODE, &[mode])?;
    how.set(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, Type::CUDNN_TYPE_INT64, &[2i64])?;
    let (padding, stride) = (shape.padding as i64, shape.stride as i64);
    for (name, value) in [
        (Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, padding),
        (Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, padding),
        (Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, stride),
        (Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, 1),
    ] {
        how.set(name, Type::CUDNN_TYPE_INT64, &[value, value])?;
    }
    how.finish()?;

    use Name as N;
    let (kind, [x_name, w_name, y_name, how_name, alpha, beta]) = match direction {
        Direction::Forward => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        Direction::Input => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        Direction::Weights => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                N::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    };
    let operation = Descriptor::new(kind)?;
    for (name, part) in [(x_name, &x), (w_name, &w), (y_name, &y), (how_name, &how)] {
        operation.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &[part.0])?;
    }
    operation.set(alpha, Type::CUDNN_TYPE_FLOAT, &[1f32])?;
    operation.set(beta, Type::CUDNN_TYPE_FLOAT, &[0f32])?;
    operation.finish()?;
    Ok(vec![x, w, y, how, operation])
}

/// A tensor whose dimensions are given as N, C, H, W and whose channels lie together.
fn tensor(id: i64, dimensions: [usize; 4], precision: Precision) -> Result<Descriptor> {
    let [n, c, h, w] = dimensions.map(|d| d as i64);
    let number = match precision {
        Precision::Bf16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
        Precision::Tf32 | Precision::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
    };
    let tensor = Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[number])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, Type::CUDNN_TYPE_INT64, &[n, c, h, w])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_STRIDES, Type::CUDNN_TYPE_INT64, &[h * w * c, 1, w * c, c])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, Type::CUDNN_TYPE_INT64, &[id])?;
    tensor.set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, Type::CUDNN_TYPE_INT64, &[16i64])?;
    tensor.finish()?;
    Ok(tensor)
}

/// Engine configurations for a graph, the best first; none where cuDNN knows none by this ranking.
fn ranked(graph: &Descriptor, ranking: Ranking) -> Result<Vec<Descriptor>> {
    let heuristic = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?;
    heuristic.set(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &[graph.0])?;
    heuristic.set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, Type::CUDNN_TYPE_HEUR_MODE, &[ranking])?;
    if heuristic.finish().is_err() {
        return Ok(vec![]);
    }
    let empty = || Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    let mut found: Vec<Descriptor> = (0..CANDIDATES).map(|_| empty()).collect::<Result<_>>()?;
    let mut raw: Vec<sys::cudnnBackendDescriptor_t> = found.iter().map(|d| d.0).collect();
    let kind = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
    let count = heuristic.get(Name::CUDNN_ATTR_ENGINEHEUR_RESULTS, kind, &mut raw)?;
    found.truncate(count);
    Ok(found)
}

/// What is to be known about an engine's numbers.
fn notes(configuration: &Descriptor) -> Result<Vec<Note>> {
    let engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
    let kind = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
    configuration.get(Name::CUDNN_ATTR_ENGINECFG_ENGINE, kind, &mut [engine.0])?;
    // Numbers, as a newer cuDNN may know notes that this binding does not.
    let mut notes = [u32::MAX; Note::CUDNN_NUMERICAL_NOTE_TYPE_COUNT as usize];
    let count = engine.get(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Type::CUDNN_TYPE_NUMERICAL_NOTE, &mut notes)?;
    let known = [
        Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE,
        Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
        Note::CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC,
    ];
    Ok(known.into_iter().filter(|note| notes[..count].contains(&(*note as u32))).collect())
}

/// A descriptor of cuDNN's, destroyed with its owner.
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

impl Descriptor {
    fn new(kind: Kind) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the descriptor is written by the call.
        unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut raw) }.result().map_err(of_cudnn)?;
        Ok(Self(raw))
    }

    fn set<T>(&self, name: Name, kind: Type, values: &[T]) -> Result<()> {
        let (count, values) = (values.len() as i64, values.as_ptr().cast());
        // SAFETY: see the module's first paragraph; the values are copied.
        unsafe { sys::cudnnBackendSetAttribute(self.0, name, kind, count, values) }
            .result()
            .map_err(|e| fail("cuDNN", format!("refuses {name:?}: {e}")))
    }

    /// Fills `values`; how many there were, at most so many.
    fn get<T>(&self, name: Name, kind: Type, values: &mut [T]) -> Result<usize> {
        let mut count = 0;
        let (room, values_at) = (values.len() as i64, values.as_mut_ptr().cast());
        // SAFETY: see the module's first paragraph; no more than `room` values are written.
        unsafe { sys::cudnnBackendGetAttribute(self.0, name, kind, room, &mut count, values_at) }
            .result()
            .map_err(|e| fail("cuDNN", format!("does not tell {name:?}: {e}")))?;
        Ok((count.max(0) as usize).min(values.len()))
    }

    fn finish(&self) -> Result<()> {
        // SAFETY: see the module's first paragraph.
        unsafe { sys::cudnnBackendFinalize(self.0) }.result().map_err(of_cudnn)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

fn of_cudnn(e: CudnnError) -> crate::Error {
    fail("cuDNN", e)
}
